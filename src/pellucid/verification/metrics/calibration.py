"""Metrics of probabilities: does a step called 30% turn out wrong 30% of the time."""

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.proportions import wilson
from pellucid.core.registry import Registry
from pellucid.verification.metrics.masses import Masses, tally
from pellucid.verification.metrics.separation import Metric, Values

BINS = 10


def brier(masses: Masses) -> Values:
    """The mean squared difference of probability and outcome (Brier 1950)."""
    p = masses.scores
    lost = masses.wrong @ (1 - p) ** 2 + masses.right @ p**2
    return lost / (masses.wrong_above[:, -1] + masses.right_above[:, -1])


def expected_calibration_error(masses: Masses, bins: int = BINS) -> Values:
    """The mean over bins of equal mass of |mean probability - share of wrong steps|.

    Steps of the same probability share a bin, the one in which the middle of their mass lies.
    Chance alone puts it above 0, more so with few steps: compare with the interval's width.
    """
    mass = masses.wrong + masses.right
    bin_of = _bins(masses, bins) + bins * np.arange(len(mass))[:, None]
    gap = masses.wrong - masses.scores * mass
    gaps = np.bincount(bin_of.ravel(), gap.ravel(), minlength=bins * len(mass))
    total = masses.wrong_above[:, -1] + masses.right_above[:, -1]
    return np.abs(gaps.reshape(-1, bins)).sum(1) / total


CALIBRATION: Registry[Metric] = Registry(
    "metric of calibration", {"ece": expected_calibration_error, "brier": brier}
)
"""Name -> metric, by the names of the command line's JSON."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Steps of like probability.

    Attributes:
        probability: their mean, by weight.
        wrong: the share of them that is wrong, by weight.
        low: lower end of that share's 95% interval (Wilson), with as many steps as the weights
            are worth: (sum of weights)^2 / sum of squares (Kish 1965).
        high: its upper end.
        steps: how many there are.
    """

    probability: float
    wrong: float
    low: float
    high: float
    steps: int

    def to_json(self) -> dict[str, Any]:
        """The bin as a JSON-able record."""
        return asdict(self)


def reliability(
    probability: Float64[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    weights: Float64[np.ndarray, " N"] | None = None,
    bins: int = BINS,
) -> list[Bin]:
    """The reliability curve: bins of equal mass, those without steps left out.

    Args:
        probability: that a step is wrong.
        wrong: the truth.
        weights: how much each step counts; once by default.
        bins: at most how many.

    Raises:
        DataError: no steps, or a probability is NaN.
    """
    wrong = np.asarray(wrong).astype(bool)
    weights = np.ones(len(wrong)) if weights is None else np.asarray(weights, dtype=np.float64)
    masses = tally(probability, wrong, weights[None])
    place = _bins(masses, bins)[0][np.searchsorted(-masses.scores, -np.asarray(probability))]
    found = []
    for rows in (np.flatnonzero((place == n) & (weights > 0)) for n in reversed(range(bins))):
        if not len(rows):
            continue
        w = weights[rows]
        share = float(w @ wrong[rows] / w.sum())
        worth = max(1, round(float(w.sum() ** 2 / (w @ w))))
        range_ = wilson(round(share * worth), worth)
        found.append(
            Bin(
                probability=float(w @ np.asarray(probability)[rows] / w.sum()),
                wrong=share,
                low=min(range_.low, share),
                high=max(range_.high, share),
                steps=len(rows),
            )
        )
    return found


def _bins(masses: Masses, bins: int) -> Int64[np.ndarray, "B K"]:
    """The bin of every distinct probability, the highest probability in bin 0."""
    mass = masses.wrong + masses.right
    above = masses.wrong_above + masses.right_above
    middle = (above - mass / 2) / above[:, -1:]
    return np.clip((middle * bins).astype(np.int64), 0, bins - 1)
