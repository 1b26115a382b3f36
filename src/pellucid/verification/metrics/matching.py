"""Weights under which right steps are as long, or as deep, as the wrong ones.

Length alone often tells wrong steps from right ones: the long early steps of a deep question fail.
Under these weights it tells nothing, so whatever a method still tells is not length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from pellucid.core.errors import DataError
from pellucid.verification.steps.step_set import StepSet


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matched:
    """Weights, and what they cost.

    Attributes:
        weights: of every step; 0 in a stratum that lacks one of the classes.
        strata: how many strata have both classes.
        lost_wrong: how many wrong steps weigh nothing.
        lost_right: how many right steps weigh nothing.
        worth: how many equally weighted right steps tell as much (Kish 1965).
    """

    weights: Float64[np.ndarray, " N"]
    strata: int
    lost_wrong: int
    lost_right: int
    worth: float

    def to_json(self) -> dict[str, Any]:
        """All but the weights as a JSON-able record."""
        return {
            "strata": self.strata,
            "lost_wrong": self.lost_wrong,
            "lost_right": self.lost_right,
            "worth": self.worth,
        }


def matched_weights(
    steps: StepSet, on: Sequence[str] = ("tokens",), *, bins: int | None = None
) -> Matched:
    """Give right steps the distribution that wrong steps have over some columns.

    Steps with the same values form a stratum. Wrong steps keep their `weight`; in every stratum the
    right steps' weights are scaled to the same sum. With `bins` None each value is its own stratum,
    so that each column of `on` alone has AUROC .5 exactly, and any function of them together.

    Args:
        steps: to be weighted.
        on: numeric columns, such as `tokens` and `remaining`.
        bins: cut every column into so many parts at quantiles of the wrong steps instead; each
            column then is matched only as finely as that.

    Raises:
        DataError: no such column, or no stratum has both classes.
    """
    values = steps.matrix(list(on))
    wrong, weights = steps.wrong, np.asarray(steps.columns["weight"], dtype=np.float64)
    if bins is not None and wrong.any():
        cuts = np.quantile(values[wrong], np.linspace(0, 1, bins + 1)[1:-1], axis=0)
        values = np.column_stack(
            [np.searchsorted(cuts[:, n], column, side="right") for n, column in enumerate(values.T)]
        )
    _, stratum = np.unique(values, axis=0, return_inverse=True)
    stratum = stratum.reshape(-1)
    masses = [np.bincount(stratum, weights * side) for side in (wrong, ~wrong)]
    both = (masses[0] > 0) & (masses[1] > 0)
    if not both.any():
        raise DataError(
            f"no right step has the same {', '.join(on)} as a wrong one; match on fewer columns, "
            "or in bins"
        )
    scale = np.divide(masses[0], masses[1], out=np.zeros(len(both)), where=both)
    matched = np.where(wrong, both[stratum], scale[stratum]) * weights
    right = matched[~wrong]
    return Matched(
        weights=matched,
        strata=int(both.sum()),
        lost_wrong=int((wrong & ~both[stratum]).sum()),
        lost_right=int((~wrong & ~both[stratum]).sum()),
        worth=float(right.sum() ** 2 / (right @ right)),
    )
