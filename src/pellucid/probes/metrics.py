"""How well scores separate two classes, with intervals from resampling whole groups."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.errors import DataError
from pellucid.graphs.resampling import interval
from pellucid.probes.groups import check_classes

BOOTSTRAPS = 1000
FPRS = (0.01, 0.001)
"""False-positive rates at which recall is reported."""

Scores = Float64[np.ndarray, " N"]
Labels = Bool[np.ndarray, " N"]
Weighted = Callable[[Scores, Labels, Scores], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
        value: measured on all rows.
        low: lower end of the percentile bootstrap interval over groups; None with one group.
        high: its upper end.
    """

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """The figure as a JSON-able record."""
        return asdict(self)


def auroc(scores: Scores, labels: Labels, weights: Scores | None = None) -> float:
    """The probability that a positive scores above a negative, ties counting half.

    Args:
        scores: higher for positives.
        labels: the truth.
        weights: how often each row counts; once by default. NaN where a class has no weight.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    classes, rank = np.unique(scores, return_inverse=True)
    rank = rank.reshape(-1)
    positive = np.bincount(rank, weights * labels, minlength=len(classes))
    negative = np.bincount(rank, weights * ~labels, minlength=len(classes))
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / pairs) if pairs > 0 else float("nan")


def threshold_at(scores: Scores, fpr: float, weights: Scores | None = None) -> float:
    """The lowest observed score that at most a share `fpr` of these scores exceeds.

    Args:
        scores: of negatives.
        fpr: the share allowed above.
        weights: how often each row counts; once by default.

    Raises:
        DataError: no scores, or NaN among them.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not len(scores) or np.isnan(scores).any():
        raise DataError(
            f"a threshold cannot be set on {len(scores)} benign scores of which "
            f"{int(np.isnan(scores).sum())} are NaN; give benign prompts that the model can read"
        )
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores)
    classes, first = np.unique(scores[order], return_index=True)
    total = np.add.reduceat(weights[order], first)
    above = weights.sum() - np.cumsum(total)
    allowed = fpr * weights.sum() * (1 + 1e-12)
    return float(classes[np.argmax(above <= allowed)])


def recall_at(scores: Scores, labels: Labels, fpr: float, weights: Scores | None = None) -> float:
    """The share of positives above the threshold that lets a share `fpr` of negatives pass.

    Args:
        scores: higher for positives.
        labels: the truth.
        fpr: false-positive rate; below one over the number of negatives it means none at all.
        weights: how often each row counts; once by default. NaN where a class has no weight.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    positive, negative = weights * labels, weights * ~labels
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    kept = negative > 0
    threshold = threshold_at(scores[kept], fpr, negative[kept])
    return float(positive @ (scores > threshold) / positive.sum())


def estimate(
    statistic: Weighted,
    scores: Scores,
    labels: Labels,
    groups: Sequence[str],
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Estimate:
    """A statistic of scores and labels with its interval, groups drawn with replacement.

    Args:
        statistic: of scores, labels and how often each row counts.
        scores: one a row.
        labels: the truth.
        groups: each row's group.
        bootstraps: how many draws.
        seed: of the draws.

    Raises:
        DataError: one class only, or a score is NaN.
    """
    labels = check_classes(labels)
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise DataError(f"{int(np.isnan(scores).sum())} scores are NaN; check the activations")
    kinds, member = np.unique(np.asarray(groups), return_inverse=True)
    member = member.reshape(-1)
    low, high = interval(
        lambda drawn: statistic(scores, labels, drawn[member]),
        len(kinds),
        bootstraps=bootstraps,
        rng=np.random.default_rng(seed),
    )
    return Estimate(value=statistic(scores, labels, np.ones(len(scores))), low=low, high=high)


def separation(
    scores: Scores, labels: Labels, groups: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """AUROC, and recall at 1% and .1% false positives, with intervals, as a JSON-able record.

    Args:
        scores: one a row.
        labels: the truth.
        groups: each row's group.
        seed: of the resampling.

    Raises:
        DataError: one class only, or a score is NaN.
    """

    def recall(fpr: float) -> Weighted:
        return lambda s, y, w: recall_at(s, y, fpr, w)

    recalls = {
        f"{fpr:g}": estimate(recall(fpr), scores, labels, groups, seed=seed).to_json()
        for fpr in FPRS
    }
    return estimate(auroc, scores, labels, groups, seed=seed).to_json() | {
        "recall_at_fpr": recalls,
        "positives": int(np.sum(labels)),
        "negatives": int(len(labels) - np.sum(labels)),
    }
