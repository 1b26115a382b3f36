"""Fitting linear probes: logistic regression and the difference of means.

Both read `x . vector + bias` of the activations as they are: standardisation is folded into the
vector. The strength of the logistic probe's penalty is chosen by cross-validation over groups.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.groups import check_classes, folds
from pellucid.probes.metrics import FPRS, auroc, recall_at

Method = Literal["logistic", "mean_difference"]
PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the L2 penalty on standardised activations, tried in this order."""
_CLOSE, _CLOSE_RECALL = 1e-4, 0.01
_ITERATIONS = 1000

Matrix = Float64[np.ndarray, "N d"]
Labels = Bool[np.ndarray, " N"]


class Line(NamedTuple):
    """A reading `x . vector + bias`, and the penalty it was fitted with (0 where none was)."""

    vector: Float64[np.ndarray, " d"]
    bias: float
    penalty: float = 0.0

    def __call__(self, x: Matrix) -> Float64[np.ndarray, " N"]:
        """The reading of each row."""
        return np.asarray(x, dtype=np.float64) @ self.vector + self.bias


def fit(
    x: Matrix, labels: Labels, groups: Sequence[str], *, method: Method = "logistic", seed: int = 0
) -> Line:
    """Fit one probe.

    Args:
        x: activations, a row an example.
        labels: the two classes.
        groups: each row's group; never cut by the cross-validation of the penalty.
        method: `logistic` or `mean_difference`.
        seed: of the folds.

    Raises:
        ConfigError: unknown method.
        DataError: one class only, values that are not finite, or groups that cannot be split.
    """
    check_method(method)
    labels, x = check_classes(labels), _checked(x)
    if method == "mean_difference":
        return mean_difference(x, labels)
    return logistic(x, labels, cross_validated(x, labels, groups, seed=seed).penalty)


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        ConfigError: it is unknown.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method is {method!r}; use {' or '.join(get_args(Method))}")


def mean_difference(x: Matrix, labels: Labels) -> Line:
    """The mean of the positives less the mean of the negatives, zero halfway between them."""
    high, low = x[labels].mean(0), x[~labels].mean(0)
    vector = high - low
    return Line(vector, float(-vector @ (high + low) / 2))


def logistic(x: Matrix, labels: Labels, penalty: float) -> Line:
    """Logistic regression on standardised activations, both classes weighing the same.

    Args:
        x: activations, a row an example.
        labels: the two classes.
        penalty: inverse strength C of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)
    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=_ITERATIONS)
    model.fit((x - mean) / spread, labels)
    vector = np.asarray(model.coef_[0], dtype=np.float64) / spread
    return Line(vector, float(model.intercept_[0] - mean @ vector), penalty)


class Choice(NamedTuple):
    """A penalty and how well it did on held-out groups.

    Attributes:
        penalty: inverse strength C.
        auroc: mean over the folds.
        recall: mean over the folds, at the strictest false-positive rate of `FPRS`.
    """

    penalty: float
    auroc: float
    recall: float


def cross_validated(x: Matrix, labels: Labels, groups: Sequence[str], *, seed: int = 0) -> Choice:
    """The strongest penalty that is near the best on held-out groups.

    Near the best: recall at the strictest false-positive rate within .01, then AUROC within .0001.
    AUROC alone hardly sees the rare false alarm that decides where a threshold must lie.

    Args:
        x: activations, a row an example.
        labels: the two classes.
        groups: each row's group, never in training and test at once.
        seed: of the folds.

    Raises:
        DataError: groups that cannot be split.
    """
    parts = folds(labels, groups, seed=seed)
    found = []
    for penalty in PENALTIES:
        scores = [logistic(x[train], labels[train], penalty)(x[test]) for train, test in parts]
        truth = [labels[test] for _, test in parts]
        pairs = list(zip(scores, truth, strict=True))
        areas = [auroc(each, true) for each, true in pairs]
        recalls = [recall_at(each, true, FPRS[-1]) for each, true in pairs]
        found.append(Choice(penalty, float(np.mean(areas)), float(np.mean(recalls))))
    recall = max(each.recall for each in found)
    good = [each for each in found if each.recall >= recall - _CLOSE_RECALL]
    best = max(each.auroc for each in good)
    return next(each for each in good if each.auroc >= best - _CLOSE)


def _checked(x: Matrix) -> Matrix:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise DataError(
            f"the activations have shape {x.shape} or values that are not finite; give one finite "
            "row an example"
        )
    return x
