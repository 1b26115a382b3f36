"""Logistic regression on dense or sparse features, its penalty chosen on held-out questions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.training import Training, best

PENALTIES = (3e-4, 3e-3, 3e-2, 0.3, 3.0)
"""Inverse strengths C of the L2 penalty on standardised features."""
CLIP = 8.0
"""Standardised values beyond this many deviations are drawn in, so that no row decides alone."""
RARE = 3
"""Sparse features of fewer training rows are left out."""

Matrix = Any
"""Features [N, F]: a NumPy array, or a SciPy CSR matrix."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """How features are made comparable: shifted and clipped (dense ones only), divided.

    Attributes:
        mean: of each dense feature; None for sparse ones.
        spread: what each is divided by.
    """

    mean: Float[np.ndarray, " F"] | None
    spread: Float[np.ndarray, " F"]

    def __call__(self, x: Matrix) -> Matrix:
        """The features in units of their spread over the training rows."""
        if self.mean is None:
            from scipy.sparse import diags

            return (x @ diags(1 / self.spread)).tocsr()
        scaled = (np.asarray(x, dtype=np.float64) - self.mean) / self.spread
        return np.clip(scaled, -CLIP, CLIP)


def scale(x: Matrix) -> Scale:
    """Means and deviations of dense features; root mean squares of sparse ones, which stay sparse.

    A feature that is constant, or rarer than `RARE` rows where sparse, is scaled to nothing.
    """
    if isinstance(x, np.ndarray):
        mean, spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        return Scale(mean, np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf))
    square = np.asarray(x.multiply(x).sum(0)).ravel() / max(x.shape[0], 1)
    rows = np.bincount(x.indices, weights=x.data != 0, minlength=x.shape[1])
    return Scale(None, np.where((rows >= RARE) & (square > 0), np.sqrt(square), np.inf))


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """A fitted reading.

    Attributes:
        scale: of the features.
        vector: their weights.
        bias: the margin where all of them are 0.
    """

    scale: Scale
    vector: Float[np.ndarray, " F"]
    bias: float

    def __call__(self, x: Matrix) -> Float[np.ndarray, " N"]:
        """The margin, higher where a step is more likely wrong."""
        return np.asarray(self.scale(x) @ self.vector).ravel() + self.bias


def logistic(x: Matrix, training: Training) -> Logistic:
    """Fit with the penalty that separates held-out questions best.

    Args:
        x: features of the training steps.
        training: their labels, weights and folds.
    """
    penalty = best(PENALTIES, lambda each: held_out(x, training, each))
    return fit(x, training, np.arange(len(training.labels)), penalty)


def held_out(x: Matrix, training: Training, penalty: float) -> float:
    """Mean AUROC over the folds of a reading with one penalty.

    Args:
        x: features of the training steps.
        training: their labels, weights and folds.
        penalty: inverse strength C.
    """
    return float(
        np.mean(
            [
                training.separation(fit(x, training, learn, penalty)(x[rest]), rest)
                for learn, rest in training.folds
            ]
        )
    )


def fit(x: Matrix, training: Training, rows: np.ndarray, penalty: float) -> Logistic:
    """Fit with a given penalty on some of the rows; both classes weigh the same.

    Args:
        x: features of the training steps.
        training: their labels and weights.
        rows: which of them to learn from.
        penalty: inverse strength C.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scaled = scale(x[rows])
    model = LogisticRegression(C=penalty, max_iter=500, tol=1e-3)
    with warnings.catch_warnings():
        # Not converged at a weak penalty is no error: the held-out folds judge the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaled(x[rows]), training.labels[rows], training.balanced[rows])
    return Logistic(scaled, np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))
