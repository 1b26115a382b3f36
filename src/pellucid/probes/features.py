"""A sparse probe on dictionary features: which few features tell two classes apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pellucid.core.places import FeatureSite
from pellucid.probes.fit import Labels, Line, logistic
from pellucid.probes.groups import check_classes, folds
from pellucid.probes.metrics import auroc

SIZES = (1, 2, 4, 8, 16, 32)
"""Numbers of features that are tried, the smallest first."""
_PENALTY = 1.0
_CLOSE = 2e-3


class FeatureProbe(NamedTuple):
    """A logistic reading of a few features.

    Attributes:
        features: which, the most different first.
        line: over their activations, in that order.
        cross_validated: held-out AUROC in training by number of features tried.
    """

    features: tuple[FeatureSite, ...]
    line: Line
    cross_validated: dict[int, float]

    def scores(self, activations: Mapping[int, Float[Tensor, "N F"]]) -> Float64[np.ndarray, " N"]:
        """The reading of each row.

        Args:
            activations: of every feature, by layer.
        """
        columns = [activations[each.layer][:, each.feature] for each in self.features]
        return self.line(torch.stack(columns, 1).double().cpu().numpy())

    def to_json(self) -> dict[str, Any]:
        """The features with their weights, and the figures of the choice."""
        weights = zip(self.features, self.line.vector.tolist(), strict=True)
        return {
            "features": [{"feature": str(site), "weight": weight} for site, weight in weights],
            "bias": self.line.bias,
            "cross_validated": {str(size): value for size, value in self.cross_validated.items()},
        }


def fit_features(
    activations: Mapping[int, Float[Tensor, "N F"]],
    labels: Labels,
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> FeatureProbe:
    """Choose the features whose means differ most for their spread, and fit a logistic reading.

    The number of features is the smallest of `SIZES` whose held-out AUROC is within .002 of the
    best. Features are chosen anew in each fold, so that no held-out row has a say in it.

    Args:
        activations: of every feature, by layer, one row an example.
        labels: the two classes.
        groups: each row's group, never cut by the folds.
        seed: of the folds.

    Raises:
        DataError: one class only, or groups that cannot be split.
    """
    labels = check_classes(labels)
    sites = [(layer, index) for layer, x in activations.items() for index in range(x.shape[1])]
    whole = np.concatenate([x.cpu().numpy() for x in activations.values()], axis=1)
    found: dict[int, list[float]] = {}
    for train, test in folds(labels, groups, seed=seed):
        order = rank(whole[train], labels[train])
        for size in SIZES:
            chosen = order[:size]
            if len(chosen) == size:
                line = logistic(whole[np.ix_(train, chosen)].astype(float), labels[train], _PENALTY)
                value = auroc(line(whole[np.ix_(test, chosen)]), labels[test])
                found.setdefault(size, []).append(value)
    means = {size: float(np.mean(values)) for size, values in found.items()}
    size = next(size for size, value in means.items() if value >= max(means.values()) - _CLOSE)
    chosen = rank(whole, labels)[:size]
    line = logistic(whole[:, chosen].astype(float), labels, _PENALTY)
    return FeatureProbe(tuple(FeatureSite(*sites[each]) for each in chosen), line, means)


def rank(x: Float[np.ndarray, "N F"], labels: Labels) -> Int64[np.ndarray, " k"]:
    """Features in falling order of the standardised difference of their class means.

    Args:
        x: activations, one row an example.
        labels: the two classes.

    Returns:
        The columns that are active in at least one row.
    """
    spread = x.std(0)
    difference = np.abs(x[labels].mean(0) - x[~labels].mean(0)) / np.where(spread > 0, spread, 1)
    order = np.argsort(-difference, kind="stable")
    return order[spread[order] > 0]
