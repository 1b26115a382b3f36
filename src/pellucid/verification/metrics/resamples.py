"""Intervals and paired differences from draws of whole questions, shared by all that is compared.

The steps of one question are not independent, and two methods are judged on the same steps; so the
questions are drawn with replacement once, and every method is measured on the same draws. Several
test parts (one a seed) are each measured alone, since scores of different fits do not compare, and
averaged; a question that is in several parts is drawn into all of them alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import ConfigError, DataError
from pellucid.graphs.resampling import COVERAGE
from pellucid.probes.groups import check_classes
from pellucid.probes.metrics import BOOTSTRAPS, Estimate
from pellucid.verification.metrics.masses import check_scores, tally
from pellucid.verification.metrics.separation import SEPARATION, Metric
from pellucid.verification.steps.step_set import StepSet

_CHUNK = 1 << 18
"""Weights held at once: draws x steps."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class TestPart:
    """What is known of the steps that a method is tested on.

    Attributes:
        wrong: the truth.
        groups: each step's question.
        weights: how much each step counts.
    """

    __test__ = False  # no test case for pytest

    wrong: Bool[np.ndarray, " N"]
    groups: np.ndarray
    weights: Float64[np.ndarray, " N"]

    @classmethod
    def of(cls, steps: StepSet, weights: Float64[np.ndarray, " N"] | None = None) -> "TestPart":
        """The labels of some steps.

        Args:
            steps: tested on.
            weights: instead of their `weight` column, such as `matched_weights` gives.
        """
        weights = steps.columns["weight"] if weights is None else weights
        return cls(steps.wrong, steps.columns["group"], np.asarray(weights, dtype=np.float64))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The metrics of one method.

    Attributes:
        values: metric -> its value on all steps.
        drawn: metric -> its value in every draw [B].
        draws: how often each draw took each question; what was measured on others is no match.
    """

    values: Mapping[str, float]
    drawn: Mapping[str, Float64[np.ndarray, " B"]]
    draws: np.ndarray

    def estimates(self) -> dict[str, Estimate]:
        """Every metric with its 95% percentile interval."""
        return {name: _estimate(value, self.drawn[name]) for name, value in self.values.items()}


@final
class Resamples:
    """Draws of questions, and what methods score on them.

    Args:
        parts: the test parts, one a seed or fold; each with both classes.
        bootstraps: how many draws; 0 for no intervals.
        seed: of the draws.

    Raises:
        DataError: no parts, or a part with one class only.
    """

    def __init__(
        self, parts: Sequence[TestPart], *, bootstraps: int = BOOTSTRAPS, seed: int = 0
    ) -> None:
        if not parts:
            raise DataError("there is no test part; give at least one")
        for part in parts:
            check_classes(part.wrong[part.weights > 0])
        self._parts = list(parts)
        names, member = np.unique(
            np.concatenate([part.groups for part in parts]), return_inverse=True
        )
        sizes = np.cumsum([len(part.groups) for part in parts])[:-1]
        self._members: list[Int64[np.ndarray, " N"]] = np.split(member.reshape(-1), sizes)
        count = bootstraps if len(names) > 1 else 0
        rng = np.random.default_rng(seed)
        shares = np.full(len(names), 1 / len(names))
        self._counts = rng.multinomial(len(names), shares, size=count).astype(np.float64)

    def measure(
        self, scores: Sequence[np.ndarray], metrics: Mapping[str, Metric] | None = None
    ) -> Measured:
        """One method's metrics.

        Args:
            scores: for each part, one score a step, higher where it is more likely wrong.
            metrics: name -> metric; those of `SEPARATION` by default.

        Raises:
            DataError: another number of scores than steps, or a NaN among them.
        """
        metrics = {n: SEPARATION[n] for n in SEPARATION} if metrics is None else metrics
        if len(scores) != len(self._parts):
            raise DataError(f"{len(scores)} arrays of scores for {len(self._parts)} test parts")
        values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
        for part, member, each in zip(self._parts, self._members, scores, strict=True):
            each = check_scores(each, len(part.wrong))
            blocks: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
            for weights in self._weights(part, member):
                masses = tally(each, part.wrong, weights)
                for name, metric in metrics.items():
                    blocks[name].append(metric(masses))
            for name in metrics:
                values[name].append(np.concatenate(blocks[name]))
        means = {name: _mean(np.stack(each)) for name, each in values.items()}
        return Measured(
            {name: float(mean[0]) for name, mean in means.items()},
            {name: mean[1:] for name, mean in means.items()},
            self._counts,
        )

    def _weights(
        self, part: TestPart, member: Int64[np.ndarray, " N"]
    ) -> Iterator[Float64[np.ndarray, "B N"]]:
        """How much each step counts: as it is, then in the draws, some at a time."""
        yield part.weights[None]
        block = max(1, _CHUNK // len(member))
        for first in range(0, len(self._counts), block):
            yield self._counts[first : first + block][:, member] * part.weights


def difference(first: Measured, second: Measured) -> dict[str, Estimate]:
    """How much larger the first method's metrics are, with the interval of the paired difference.

    Args:
        first: one method.
        second: another, measured on the same draws.

    Raises:
        ConfigError: they were measured on other draws.
    """
    if first.draws is not second.draws:
        raise ConfigError("the two methods were measured on different draws; use one `Resamples`")
    return {
        name: _estimate(value - second.values[name], first.drawn[name] - second.drawn[name])
        for name, value in first.values.items()
    }


def _mean(values: Float64[np.ndarray, "parts B"]) -> Float64[np.ndarray, " B"]:
    """Mean over the parts in which a draw left both classes; NaN where none has."""
    there = np.isfinite(values)
    count = there.sum(0)
    total = np.where(there, values, 0).sum(0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _estimate(value: float, drawn: Float64[np.ndarray, " B"]) -> Estimate:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Estimate(value=value, low=None, high=None)
    low, high = np.quantile(finite, COVERAGE)
    return Estimate(value=value, low=float(low), high=float(high))
