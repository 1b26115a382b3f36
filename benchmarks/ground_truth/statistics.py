"""ROC-AUC and bootstrap intervals over prompts."""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

BOOTSTRAPS = 1000


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN without either.

    Mann and Whitney's U over the number of pairs.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    ranks = rankdata(scores)
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def interval(
    count: int, statistic: Callable[[np.ndarray], float], *, seed: int = 0
) -> tuple[float, float]:
    """The 95% bootstrap interval of a statistic of `count` prompts.

    Args:
        count: how many prompts there are.
        statistic: from the numbers of the prompts drawn to the figure.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(BOOTSTRAPS)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """A mean over prompts with its interval; prompts without a value are left out."""
    kept = values[np.isfinite(values)]
    if len(kept) == 0:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    low, high = interval(len(kept), lambda rows: float(kept[rows].mean()), seed=seed)
    return {"value": float(kept.mean()), "low": low, "high": high}
