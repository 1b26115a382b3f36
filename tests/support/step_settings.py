"""A step in the middle of training, and the gradients that it takes."""

import torch

from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters
from pellucid.training.step import TrainState, train_step

DEAD_AFTER = 100


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def middle_of_training(
    kind: str, n: int, d_in: int, d_out: int, features: int, k: int, n_dead: int, seed: int
) -> tuple[TrainConfig, TrainState, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A state in the middle of training: no parameter is at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    config = TrainConfig(kind=kind, num_features=features, k=min(k, features))
    d_out = d_in if kind == "sae" else d_out
    parameters = Parameters(
        W_enc=normal(features, d_in, generator=generator),
        b_enc=normal(features, generator=generator),
        W_dec=normal(features, d_out, generator=generator),
        b_dec=normal(d_out, generator=generator),
        W_skip=normal(d_out, d_in, generator=generator) if kind == "skip-transcoder" else None,
    )
    state = TrainState.start(config, parameters)
    dead = torch.randperm(features, generator=generator) < min(n_dead, features)
    state.idle_tokens[dead] = DEAD_AFTER
    x = normal(n, d_in, generator=generator)
    y = x if kind == "sae" else normal(n, d_out, generator=generator)
    return config, state, x, y, dead


def step_gradients(
    config: TrainConfig, state: TrainState, x: torch.Tensor, y: torch.Tensor
) -> dict[str, torch.Tensor]:
    """After its first update Adam's mean is (1 - beta1) times the gradient."""
    train_step(config, state, x, y, rate=0.0, dead_after=DEAD_AFTER)
    return {name: m / (1 - config.beta1) for name, m in state.first.tensors().items()}
