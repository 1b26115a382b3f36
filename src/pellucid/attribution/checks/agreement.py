"""How well predicted effects agree with measured ones: rank correlation with intervals, and signs.

Intervals draw intervened features with replacement, all observations of a feature together, since
those of one feature (ablated and doubled, read at several places) are not independent.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

BOOTSTRAPS = 1000
COVERAGE = (0.025, 0.975)


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation with ties averaged; None where either side is constant."""
    first, second = (np.asarray(values, dtype=np.float64).ravel() for values in (a, b))
    value = _weighted_spearman(first, second, np.ones((1, len(first))))[0]
    return float(value) if np.isfinite(value) else None


def agreement(
    name: str,
    predicted: np.ndarray,
    measured: np.ndarray,
    units: Int64[np.ndarray, " n"] | None = None,
    *,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """`spearman_NAME`, its 95% bootstrap interval, and `sign_agreement_NAME`; None where undefined.

    Args:
        name: ends the keys.
        predicted: predicted effects, of any shape.
        measured: measured effects, of the same shape.
        units: which feature each observation intervenes on (same shape); by default the last axis.
        rng: of the bootstrap.
    """
    first, second = (
        np.asarray(values, dtype=np.float64).ravel() for values in (predicted, measured)
    )
    if units is None:
        units = np.broadcast_to(np.arange(np.shape(predicted)[-1]), np.shape(predicted))
    value, interval = spearman(first, second), None
    names, unit = np.unique(np.asarray(units).ravel(), return_inverse=True)
    if value is not None and len(names) > 1:
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=BOOTSTRAPS)
        values = _weighted_spearman(first, second, draws[:, unit].astype(np.float64))
        finite = values[np.isfinite(values)]
        interval = [float(x) for x in np.quantile(finite, COVERAGE)] if len(finite) else None
    signs = float((np.sign(first) == np.sign(second)).mean()) if len(first) else None
    return {
        f"spearman_{name}": value,
        f"spearman_{name}_interval": interval,
        f"sign_agreement_{name}": signs,
    }


def _weighted_spearman(
    a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"], draws: Float64[np.ndarray, "B n"]
) -> Float64[np.ndarray, " B"]:
    """Rank correlation of every draw, where observation i counts `draws[:, i]` times; NaN if none.

    Where a draw takes every observation of a column from one group of ties, it is constant.
    """
    if not len(a):
        return np.full(len(draws), np.nan)
    total = draws.sum(axis=1, keepdims=True)
    ranks = [_centred_ranks(values, draws, total) for values in (a, b)]
    norm = np.sqrt((draws * ranks[0] ** 2).sum(axis=1) * (draws * ranks[1] ** 2).sum(axis=1))
    product = (draws * ranks[0] * ranks[1]).sum(axis=1)
    return np.divide(product, norm, out=np.full(len(draws), np.nan), where=norm > 0)


def _centred_ranks(values: np.ndarray, draws: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Ranks less their mean, [B, n]: ties share the mean of the ranks that they take up."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    count = np.add.reduceat(draws[:, order], np.cumsum(sizes) - sizes, axis=1)
    return (np.cumsum(count, axis=1) - (count - 1) / 2 - (total + 1) / 2)[:, group]
