"""The settings of a fine-tuning run, each default with its source."""

from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.core.errors import ConfigError

Objective = Literal["kl", "local"]
"""What is lowered: the KL divergence at the output and the local errors, or the local errors alone,
which is more of ordinary training: the control that tells what the KL term is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """How to train dictionaries end to end, all MLPs replaced (docs/finetuning.md).

    Attributes:
        objective: "kl", or "local" for the control without the KL term.
        local_weight: weight of the local term beside the KL term, each counted in what it was
            before: at 1 both would weigh the same (measured).
        learning_rate: Adam's peak rate at unit scale (measured).
        encoder_rate: share of it that encoder rows and biases get: which features are active then
            changes little, and with it what they mean (measured).
        warmup_share: share of the run in which the rate rises to its peak; it then falls
            linearly to 0.
        beta1: Adam's decay of the gradient's mean (Kingma and Ba 2015).
        beta2: Adam's decay of the squared gradient's mean (Kingma and Ba 2015).
        epsilon: Adam's divisor floor, small because gradients of mean losses are (as in training).
        batch_tokens: tokens a step, at least: rows are taken whole.
        seed: of the specimen's corpus and of resampling; the run itself draws nothing.

    Raises:
        ConfigError: a value out of range or unknown.
    """

    objective: Objective = "kl"
    local_weight: float = 0.1
    learning_rate: float = 5e-4
    encoder_rate: float = 0.1
    warmup_share: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-12
    batch_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise ConfigError(
                f"unknown objective {self.objective!r}; use one of {', '.join(get_args(Objective))}"
            )
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {self.batch_tokens}; give a positive number")
        for name in ("local_weight", "encoder_rate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or a positive number")
        if self.objective == "local" and self.local_weight == 0:
            raise ConfigError("objective 'local' with local_weight 0 leaves nothing to lower")
        for name in ("warmup_share", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; give a number from 0 to below 1"
                )
        for name in ("learning_rate", "epsilon"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a positive number")

    def rate(self, step: int, total_steps: int) -> float:
        """The learning rate of step `step` (from 0), at unit scale."""
        warmup = int(self.warmup_share * total_steps)
        left = (total_steps - step) / max(1, total_steps - warmup)
        return self.learning_rate * min(1.0, (step + 1) / (warmup + 1), left)
