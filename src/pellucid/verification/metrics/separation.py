"""Metrics of order: how well wrong steps are told from right ones; wrong is the positive class.

Each takes the masses of B draws and gives B values, NaN where a draw has one class only.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from pellucid.core.registry import Registry
from pellucid.verification.metrics.masses import Masses

Values = Float64[np.ndarray, " B"]
Metric = Callable[[Masses], Values]
RECALL = 0.95
"""Share of wrong steps that must be found where false alarms are counted."""
_ROUNDING = 1e-12


def auroc(masses: Masses) -> Values:
    """The probability that a wrong step scores above a right one, ties counting half."""
    below = masses.right_above[:, -1:] - masses.right_above + masses.right / 2
    return _divided((masses.wrong * below).sum(1), _pairs(masses))


def average_precision(masses: Masses) -> Values:
    """Precision at each score, averaged over the wrong steps found there (no interpolation)."""
    found = (masses.wrong * _precision(masses)).sum(1)
    return np.where(_pairs(masses) > 0, _divided(found, masses.wrong_above[:, -1]), np.nan)


def trapezoid_aupr(masses: Masses) -> Values:
    """Area under straight lines between the points of precision and recall (the paper's figure).

    It is too kind where few wrong steps are found at once; `average_precision` is not.
    """
    precision = _precision(masses)
    before = np.concatenate([np.ones((len(precision), 1)), precision[:, :-1]], axis=1)
    area = (masses.wrong * (precision + before) / 2).sum(1)
    return np.where(_pairs(masses) > 0, _divided(area, masses.wrong_above[:, -1]), np.nan)


def false_alarms(masses: Masses, recall: float = RECALL) -> Values:
    """The smallest share of right steps flagged by a threshold that flags `recall` of the wrong."""
    wanted = recall * masses.wrong_above[:, -1:] * (1 - _ROUNDING)
    place = np.argmax(masses.wrong_above >= wanted, axis=1)
    flagged = masses.right_above[np.arange(len(place)), place]
    return np.where(_pairs(masses) > 0, _divided(flagged, masses.right_above[:, -1]), np.nan)


SEPARATION: Registry[Metric] = Registry(
    "metric of separation",
    {
        "auroc": auroc,
        "ap": average_precision,
        "aupr": trapezoid_aupr,
        "fpr95": false_alarms,
    },
)
"""Name -> metric, by the names of the command line's JSON."""


def _precision(masses: Masses) -> Float64[np.ndarray, "B K"]:
    """Share of wrong among what scores at least so high; 1 above the first step that counts."""
    flagged = masses.wrong_above + masses.right_above
    return np.divide(masses.wrong_above, flagged, out=np.ones_like(flagged), where=flagged > 0)


def _pairs(masses: Masses) -> Values:
    return masses.wrong_above[:, -1] * masses.right_above[:, -1]


def _divided(value: Values, by: Values) -> Values:
    return np.divide(value, by, out=np.full_like(by, np.nan), where=by > 0)
