"""Figures with a bootstrap interval and a chance level.

Every statistic here takes whole-number weights, one a row: how often a resample drew that row. A
plain figure is the statistic with all weights one. Suffix: R rows.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import GraphError

Statistic = Callable[[Float64[np.ndarray, " units"]], float]
COVERAGE = (0.025, 0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        value: the figure; None where it is not defined (nothing to compare, or no variation).
        low: lower end of the 95% percentile bootstrap interval; None where it cannot be had.
        high: its upper end.
        null: mean of the figure when the identities of features are permuted within each layer;
            None where that was not measured.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    null: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The figure as a JSON-able record."""
        return asdict(self)


def interval(
    statistic: Statistic, units: int, *, bootstraps: int, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """95% percentile interval of a statistic when its units are drawn with replacement.

    Args:
        statistic: of how often every unit was drawn; NaN where a draw does not define it.
        units: how many units there are; with fewer than two there is no interval.
        bootstraps: how many draws; 0 for no interval.
        rng: of the draws.
    """
    if units < 2 or bootstraps < 1:
        return None, None
    draws = (rng.integers(units, size=units) for _ in range(bootstraps))
    values = np.array(
        [statistic(np.bincount(draw, minlength=units).astype(np.float64)) for draw in draws]
    )
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    low, high = np.quantile(values, COVERAGE)
    return float(low), float(high)


def defined(value: float) -> float | None:
    """`value`, with NaN as None."""
    return float(value) if np.isfinite(value) else None


def mean_defined(values: list[float]) -> float | None:
    """Mean of those of `values` that are not NaN; None without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def jaccard(
    first: Bool[np.ndarray, " R"], second: Bool[np.ndarray, " R"], draws: Float64[np.ndarray, " R"]
) -> float:
    """Rows in both sets over rows in either; NaN when both are empty."""
    either = float(draws @ (first | second))
    return float(draws @ (first & second)) / either if either > 0 else float("nan")


def weighted_jaccard(
    first: Float64[np.ndarray, " R"],
    second: Float64[np.ndarray, " R"],
    draws: Float64[np.ndarray, " R"],
) -> float:
    """Sum of the smaller of two non-negative values over the sum of the larger (Ruzicka)."""
    larger = float(draws @ np.maximum(first, second))
    return float(draws @ np.minimum(first, second)) / larger if larger > 0 else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class RankCorrelation:
    """Spearman's correlation of two columns, ties averaged, for any resample of the rows.

    Attributes:
        classes: for either column, the number of every row's distinct value in ascending order.
    """

    classes: tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"]]

    @classmethod
    def of(
        cls, first: Float64[np.ndarray, " R"], second: Float64[np.ndarray, " R"]
    ) -> "RankCorrelation":
        """Sort both columns once."""
        a, b = (np.unique(column, return_inverse=True)[1].reshape(-1) for column in (first, second))
        return cls((a, b))

    def __call__(self, draws: Float64[np.ndarray, " R"]) -> float:
        """The correlation when row r counts `draws[r]` times.

        NaN where fewer than three rows were drawn or a column is constant.
        """
        total = float(draws.sum())
        if np.count_nonzero(draws) < 3:
            return float("nan")
        ranks = []
        for classes in self.classes:
            count = np.bincount(classes, draws)
            ranks.append((np.cumsum(count) - (count - 1) / 2 - (total + 1) / 2)[classes])
        norm = float(np.sqrt((draws @ ranks[0] ** 2) * (draws @ ranks[1] ** 2)))
        return float(draws @ (ranks[0] * ranks[1])) / norm if norm > 0 else float("nan")


def check_draws(*, bootstraps: int, nulls: int) -> None:
    """Refuse negative counts of resamples and permutations.

    Raises:
        GraphError: one of them is below 0.
    """
    for name, value in (("bootstraps", bootstraps), ("nulls", nulls)):
        if value < 0:
            raise GraphError(f"{name} is {value}; give 0 (none) or more")
