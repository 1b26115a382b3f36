"""Whatever kind is trained with whatever activation, what comes out keeps the contract."""

import pytest
import torch

from pellucid.core.types import Site
from pellucid.dictionaries import Dictionary
from pellucid.dictionaries.conformance import check_dictionary
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.fidelity import measure_dictionaries
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together

KINDS = ["transcoder", "skip-transcoder", "sae", "clt"]
ACTIVATIONS = ["topk", "batchtopk", "jumprelu", "relu"]
LAYERS, BATCH, STEPS = 2, 128, 60


def _batches(kind: str, count: int) -> list[ActivationBatch]:
    """Layers that read sparse sums of directions; the second output depends on both inputs."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(LAYERS, 20, 12, generator=generator)
    output_map = torch.randn(LAYERS, LAYERS, 20, 10, generator=generator)
    batches = []
    for _ in range(count):
        active = torch.rand(LAYERS, BATCH, 20, generator=generator) < 0.1
        strengths = active * torch.rand(LAYERS, BATCH, 20, generator=generator)
        values: dict[Site, torch.Tensor] = {}
        for m in range(LAYERS):
            values[Site("mlp_in", m)] = strengths[m] @ directions[m] * 5 + 1
            written = sum(strengths[i] @ output_map[i, m] for i in range(m + 1))
            assert isinstance(written, torch.Tensor)
            values[Site("mlp_out", m)] = written / 3
        batches.append(ActivationBatch(dict(values), torch.zeros(BATCH, dtype=torch.int64)))
    return batches


def _trained(config: TrainConfig, batches: list[ActivationBatch]) -> dict[int, Dictionary]:
    layers = range(LAYERS if config.kind == "clt" else 1)
    read = [Site("mlp_in", m) for m in layers]
    write = read if config.kind == "sae" else [Site("mlp_out", m) for m in layers]
    first = batches[0].values
    trainings = [
        LayerTraining.start(
            config,
            first[read[m]],
            first[write[m]],
            read_site=read[m],
            write_site=write[m],
            total_tokens=len(batches) * BATCH,
            generator=torch.Generator().manual_seed(m),
            later=[first[site] for site in write[m + 1 :]],
        )
        for m in layers
    ]
    for batch in batches:
        xs, ys = ([batch.values[site] for site in sites] for sites in (read, write))
        step_together(trainings, xs, ys)
    return {m: trainings[m].dictionary() for m in layers}


@pytest.mark.parametrize("prefixes", [(), (7, 20)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_keeps_the_contract(
    kind: str, activation: str, prefixes: tuple[int, ...]
) -> None:
    config = TrainConfig(
        kind=kind,
        activation=activation,
        num_features=40,
        k=4,
        prefixes=prefixes,
        batch_tokens=BATCH,
        learning_rate=5e-3,
    )
    *batches, last = _batches(kind, STEPS + 1)
    dictionaries = _trained(config, batches)
    for dictionary in dictionaries.values():
        check_dictionary(dictionary)
    for layer in measure_dictionaries(dictionaries, [last], tokens=BATCH):
        assert layer.fvu < 0.75, f"layer {layer.layer}"
        assert layer.l0 > 1
