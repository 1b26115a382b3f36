"""Every setting changes what every kind with every activation learns, or is refused."""

from dataclasses import fields, replace

import pytest
import torch

from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together

TOKENS, STEPS, LAYERS, WIDTH = 64, 6, 2, 9
BASE = TrainConfig(num_features=200, k=2, dead_after=TOKENS, batch_tokens=TOKENS)
CHANGED = {
    "k": 3,
    "prefixes": (50,),
    "sparsity": 0.9,
    "bandwidth": 1.5,
    "cut_memory": 0.2,
    "decoder_norm": "unit",
    "average": 0.5,
    "aux_coefficient": 0.3,
    "aux_k": 1,
    "dead_after": 3 * TOKENS,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "decay_share": 0.5,
    "beta1": 0.5,
    "beta2": 0.9,
    "epsilon": 1e-2,
    "precision": "bfloat16",
}
OF_A_RUN = {"kind", "activation", "num_features", "expansion", "batch_tokens", "seed"}
"""What decides shapes, or is used before a layer's training: see tests/unit/cli."""


def learned(config: TrainConfig) -> list[dict[str, torch.Tensor]]:
    """The dictionaries after some steps, of two layers where they are trained together."""
    generator = torch.Generator().manual_seed(0)
    layers = LAYERS if config.kind == "clt" else 1
    trainings: list[LayerTraining] = []
    for _ in range(STEPS):
        xs = [torch.randn(TOKENS, WIDTH, generator=generator) * 3 + 1 for _ in range(layers)]
        ys = xs if config.kind == "sae" else [x.flip(1).relu() for x in xs]
        trainings = trainings or [
            LayerTraining.start(
                config,
                xs[layer],
                ys[layer],
                read_site=Site("mlp_in", layer),
                write_site=Site("mlp_in" if config.kind == "sae" else "mlp_out", layer),
                total_tokens=2 * STEPS * TOKENS,
                generator=torch.Generator().manual_seed(layer),
                later=ys[layer + 1 :],
            )
            for layer in range(layers)
        ]
        step_together(trainings, xs, ys)
    return [training.dictionary().tensors() for training in trainings]


def same(left: list[dict[str, torch.Tensor]], right: list[dict[str, torch.Tensor]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a.keys() == b.keys() and all(a[n].equal(b[n]) for n in a) for a, b in pairs)


def test_every_setting_is_here() -> None:
    assert {field.name for field in fields(TrainConfig)} == CHANGED.keys() | OF_A_RUN


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu", "relu"])
@pytest.mark.parametrize("kind", ["transcoder", "skip-transcoder", "sae", "clt"])
def test_a_setting_does_something_or_is_refused(kind: str, activation: str) -> None:
    base = replace(BASE, kind=kind, activation=activation)
    before = learned(base)
    assert same(before, learned(base))
    silent = []
    for name, value in CHANGED.items():
        try:
            config = replace(base, **{name: value})
        except ConfigError as error:
            assert f"{name} is {value} but means nothing to {activation}" in str(error)
            continue
        if same(before, learned(config)):
            silent.append(name)
    assert silent == []
