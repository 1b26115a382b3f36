"""Dictionaries in the middle of training, and the gradients of a step that they take."""

from typing import NamedTuple

import torch

from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters
from pellucid.training.state import TrainState
from pellucid.training.step import train_step
from support.dense_training import Named

DEAD_AFTER = 100
LAYERS = 3


class Setting(NamedTuple):
    """Dictionaries in the middle of training (no parameter is an initial one), and a batch."""

    config: TrainConfig
    states: list[TrainState]
    xs: list[torch.Tensor]
    ys: list[torch.Tensor]
    dead: list[torch.Tensor]

    def tensors(self) -> list[Named]:
        return [state.parameters.tensors() for state in self.states]


def middle_of_training(
    config: TrainConfig, *, n: int, d_in: int, d_out: int, n_dead: int, seed: int
) -> Setting:
    generator = torch.Generator().manual_seed(seed)
    features = config.num_features
    assert features

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d_out = d_in if config.kind == "sae" else d_out
    layers = LAYERS if config.kind == "clt" else 1
    states, xs, ys, deads = [], [], [], []
    for layer in range(layers):
        parameters = Parameters(
            W_enc=normal(features, d_in),
            b_enc=normal(features),
            W_dec=normal(features, (layers - layer) * d_out),
            b_dec=normal(d_out),
            W_skip=normal(d_out, d_in) if config.kind == "skip-transcoder" else None,
            threshold=normal(features).abs() if config.activation == "jumprelu" else None,
        )
        state = TrainState.start(config, parameters)
        dead = torch.randperm(features, generator=generator) < min(n_dead, features)
        state.idle_tokens[dead] = DEAD_AFTER
        states.append(state)
        deads.append(dead)
        xs.append(normal(n, d_in))
        ys.append(xs[-1] if config.kind == "sae" else normal(n, d_out))
    return Setting(config, states, xs, ys, deads)


def step_gradients(setting: Setting) -> list[Named]:
    """After its first update Adam's mean is (1 - beta1) times the gradient."""
    config, states, xs, ys, _ = setting
    train_step(config, states, xs, ys, rate=0.0, dead_after=DEAD_AFTER)
    return [
        {name: mean / (1 - config.beta1) for name, mean in state.first.tensors().items()}
        for state in states
    ]


def moved(setting: Setting, dtype: torch.dtype, device: str = "cpu") -> Setting:
    """The same setting in another dtype and place."""
    states = []
    for state in setting.states:
        tensors = {n: t.to(device, dtype) for n, t in state.parameters.tensors().items()}
        states.append(TrainState.start(setting.config, Parameters.from_tensors(tensors)))
        states[-1].idle_tokens.copy_(state.idle_tokens)
    xs, ys = ([part.to(device, dtype) for part in parts] for parts in (setting.xs, setting.ys))
    return setting._replace(states=states, xs=xs, ys=ys)
