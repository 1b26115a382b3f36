"""The one statistic behind every metric: how much wrong and right lies at each distinct score.

Metrics are functions of it, for many draws of the same steps at once. Suffixes: N steps, B draws,
K distinct scores.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.errors import DataError


@final
@dataclass(frozen=True, slots=True, eq=False)
class Masses:
    """Weight of wrong and right steps by score, the highest score first.

    Attributes:
        scores: the distinct scores, descending.
        wrong: weight of wrong steps at each score, a row a draw.
        right: weight of right steps.
        wrong_above: weight of wrong steps at each score or above it.
        right_above: weight of right steps.
    """

    scores: Float64[np.ndarray, " K"]
    wrong: Float64[np.ndarray, "B K"]
    right: Float64[np.ndarray, "B K"]
    wrong_above: Float64[np.ndarray, "B K"]
    right_above: Float64[np.ndarray, "B K"]


def tally(
    scores: Float64[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    weights: Float64[np.ndarray, "B N"],
) -> Masses:
    """The masses of some steps.

    Args:
        scores: higher where a step is more likely wrong; no NaN.
        wrong: the truth.
        weights: how much each step counts, a row a draw.

    Raises:
        DataError: no steps, lengths that differ, a score that is NaN, or a weight below 0.
    """
    scores = check_scores(scores, len(wrong))
    if weights.shape[1] != len(scores) or (weights.size and not weights.min() >= 0):
        raise DataError(
            f"weights of shape {weights.shape} for {len(scores)} steps, or one below 0 or NaN; "
            "give every step one weight of at least 0"
        )
    order = np.argsort(-scores, kind="stable")
    distinct, first = np.unique(-scores[order], return_index=True)
    masses = []
    for side in (wrong[order], ~wrong[order]):
        mass = weights[:, order] * side
        masses.append(mass if len(first) == len(scores) else np.add.reduceat(mass, first, axis=1))
    return Masses(-distinct, *masses, *(np.cumsum(mass, axis=1) for mass in masses))


def check_scores(scores: np.ndarray, count: int) -> Float64[np.ndarray, " N"]:
    """The scores as float64, one for each of `count` steps.

    Raises:
        DataError: there are none, their number is another, or one is NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not count or scores.shape != (count,):
        raise DataError(
            f"there are scores of shape {scores.shape} for {count} steps; give at least one step, "
            "and every step one score"
        )
    if missing := int(np.isnan(scores).sum()):
        raise DataError(f"{missing} of {count} scores are NaN; check the columns they come from")
    return scores
