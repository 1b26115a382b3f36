"""Adam over rows of a parameter, and the learning rate's course."""

import torch
from torch import Tensor
from torch.optim.adam import adam

from pellucid.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, total_steps: int, num_features: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, a plateau if asked for, linear decay to 0.

    The peak is 1e-3 / sqrt(F / 2^14) unless the configuration sets it (see `TrainConfig`).
    """
    peak = config.learning_rate or 1e-3 / (num_features / 2**14) ** 0.5
    warmup = min(config.warmup_steps, total_steps // 10)
    decay = max(1.0, config.decay_share * (total_steps - warmup))
    return peak * min(1.0, (step + 1) / (warmup + 1), max(0.0, total_steps - step) / decay)


def adam_update(
    parameter: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    config: TrainConfig,
    rate: float,
    step: int,
) -> None:
    """One Adam update in place (Kingma and Ba 2015), in a single pass over memory.

    Any slice of a parameter may be updated on its own, with the matching slices of its moments.

    Args:
        parameter: what to update.
        gradient: its gradient.
        first: running mean of the gradient.
        second: running mean of the squared gradient.
        config: betas and epsilon.
        rate: the learning rate.
        step: updates done before this one.
    """
    adam(
        [parameter],
        [gradient],
        [first],
        [second],
        max_exp_avg_sqs=[],
        state_steps=[torch.tensor(float(step), device=parameter.device)],
        fused=True,
        amsgrad=False,
        maximize=False,
        weight_decay=0.0,
        beta1=config.beta1,
        beta2=config.beta2,
        lr=rate,
        eps=config.epsilon,
    )
