"""What a patch is judged by: one number of the logits at the last position."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final, get_args

from jaxtyping import Float
from torch import Tensor

Metric = Callable[[Float[Tensor, "N V"]], Float[Tensor, " N"]]
"""From logits, a row a copy, to one number each."""
MetricName = Literal["logit_difference", "probability", "kl"]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)


@final
@dataclass(frozen=True, slots=True)
class LogitDifference:
    """logit(answer) - logit(other), in nats: a log ratio of probabilities."""

    answer: int
    other: int

    def __call__(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
        """One difference a row."""
        return logits[:, self.answer] - logits[:, self.other]


@final
@dataclass(frozen=True, slots=True)
class Probability:
    """Probability of the answer."""

    answer: int

    def __call__(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
        """One probability a row."""
        return logits.softmax(dim=-1)[:, self.answer]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """-KL(clean || row), in nats: 0 where a row has the clean distribution, negative elsewhere.

    Attributes:
        clean: logits of the clean run.
    """

    clean: Float[Tensor, " V"]

    def __call__(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
        """One divergence a row."""
        log_p = self.clean.float().log_softmax(dim=-1)
        return (log_p.exp() * (logits.float().log_softmax(dim=-1) - log_p)).sum(dim=-1)


def metric_of(
    name: MetricName, clean: Float[Tensor, " V"], answer: int, other: int
) -> LogitDifference | Probability | Divergence:
    """The metric of that name.

    Args:
        name: one of `METRIC_NAMES`.
        clean: logits of the clean run.
        answer: id of the clean answer.
        other: id of the corrupt one.
    """
    match name:
        case "logit_difference":
            return LogitDifference(answer, other)
        case "probability":
            return Probability(answer)
        case "kl":
            return Divergence(clean.detach().clone())
    assert name in METRIC_NAMES, name
    raise AssertionError
