"""Histogram gradient boosting, the number of trees chosen on held-out questions.

Of many features only some can be looked at: the most frequent, and those whose means differ most
between wrong and right steps, ranked anew on the rows that are learned from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pellucid.verification.methods.logistic import Matrix
from pellucid.verification.methods.training import Training

TREES, LEAVES, BINS, RATE = 120, 8, 64, 0.08
FREQUENT, DIFFERENT = 192, 64
"""How many features are kept for being frequent, and for telling the classes apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Boosting:
    """Fitted trees.

    Attributes:
        columns: the features that they look at.
        edges: of the bins of each of them.
        model: scikit-learn's, over the bins.
    """

    columns: Int[np.ndarray, " kept"]
    edges: list[np.ndarray]
    model: Any

    def binned(self, x: Matrix) -> Float[np.ndarray, "N kept"]:
        """The bin of every value of the features that are looked at."""
        part = _dense(x, self.columns)
        return np.column_stack(
            [np.searchsorted(edges, each) for edges, each in zip(self.edges, part.T, strict=True)]
        ).astype(np.float64)

    def __call__(self, x: Matrix) -> Float[np.ndarray, " N"]:
        """The margin, higher where a step is more likely wrong."""
        return np.asarray(self.model.decision_function(self.binned(x)))


def boosting(x: Matrix, training: Training) -> Boosting:
    """Fit with the number of trees that separates held-out questions best.

    Args:
        x: features of the training steps.
        training: their labels, weights and folds.
    """
    found = np.zeros(TREES)
    for learn, rest in training.folds[:2]:
        trees = _fit(x, training, learn, TREES)
        stages = trees.model.staged_decision_function(trees.binned(x[rest]))
        found += [training.separation(np.asarray(each).ravel(), rest) for each in stages]
    return _fit(x, training, np.arange(len(training.labels)), int(found.argmax()) + 1)


def screened(x: Matrix, training: Training, rows: np.ndarray) -> Int[np.ndarray, " kept"]:
    """Which features to look at: all of few, else the most frequent and the most different.

    Args:
        x: features of the training steps.
        training: their labels.
        rows: those that are learned from.
    """
    if x.shape[1] <= FREQUENT + DIFFERENT:
        return np.arange(x.shape[1])
    part, labels = x[rows], training.labels[rows]
    often = np.asarray((part != 0).sum(0)).ravel()
    mean, square = (np.asarray(each.mean(0)).ravel() for each in (part, _square(part)))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    apart = np.abs(
        np.asarray(part[labels].mean(0)).ravel() - np.asarray(part[~labels].mean(0)).ravel()
    )
    apart = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0)
    frequent = np.argsort(-often, kind="stable")[:FREQUENT]
    apart[frequent] = -1
    different = np.argsort(-apart, kind="stable")[:DIFFERENT]
    return np.sort(np.concatenate([frequent, different]))


def _fit(x: Matrix, training: Training, rows: np.ndarray, trees: int) -> Boosting:
    from sklearn.ensemble import HistGradientBoostingClassifier

    columns = screened(x, training, rows)
    edges = [_edges(each) for each in _dense(x[rows], columns).T]
    model = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=10,
        l2_regularization=1.0,
        max_bins=BINS,
        early_stopping=False,
        random_state=training.seed,
    )
    made = Boosting(columns, edges, model)
    model.fit(made.binned(x[rows]), training.labels[rows], training.balanced[rows])
    return made


def _edges(values: Float[np.ndarray, " N"]) -> np.ndarray:
    """Edges of bins of equal counts, and some among the values that are not 0.

    scikit-learn's own take most of the time where rows weigh differently.
    """
    most = np.quantile(values, np.arange(1, BINS - 8) / (BINS - 8))
    some = values[values != 0]
    few = np.quantile(some, (0, 0.2, 0.4, 0.6, 0.8)) if len(some) else some
    return np.unique(np.concatenate([most, few]))


def _square(x: Matrix) -> Matrix:
    return x**2 if isinstance(x, np.ndarray) else x.multiply(x)


def _dense(x: Matrix, columns: Int[np.ndarray, " kept"]) -> np.ndarray:
    part = x[:, columns]
    return part if isinstance(part, np.ndarray) else part.toarray()
