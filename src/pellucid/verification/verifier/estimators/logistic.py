"""Logistic regression on standardised columns, both classes weighing the same."""

from typing import Any, ClassVar, Self, final

import numpy as np
from jaxtyping import Float64

from pellucid.verification.metrics.masses import tally
from pellucid.verification.metrics.separation import auroc
from pellucid.verification.verifier.estimators.estimator import Arrays, Estimator
from pellucid.verification.verifier.examples import Examples

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the L2 penalty, the strongest penalty first."""
_CLOSE = 0.002
_FOLDS = 4
_ITERATIONS = 2000


@final
class Logistic(Estimator):
    """`margin = intercept + sum of coefficient * (column - mean) / spread`.

    The penalty is the strongest whose AUROC on held-out questions is within .002 of the best.

    Args:
        mean: of every column.
        coefficient: of every column as it is, the spread divided in.
        intercept: the margin at the mean.
        penalty: inverse strength C that was chosen.
    """

    name: ClassVar[str] = "logistic"

    def __init__(
        self,
        mean: Float64[np.ndarray, " C"],
        coefficient: Float64[np.ndarray, " C"],
        intercept: float,
        penalty: float,
    ) -> None:
        numbers = (mean, coefficient, np.array([intercept, penalty]))
        if mean.shape != coefficient.shape or not all(np.isfinite(n).all() for n in numbers):
            raise ValueError("the arrays do not form a logistic regression")
        self.mean, self.coefficient = mean, coefficient
        self.intercept, self.penalty = intercept, penalty

    @classmethod
    def fit(cls, examples: Examples, *, seed: int, like: Self | None = None) -> Self:
        """Choose the penalty on held-out questions, then fit all of them."""
        if like is not None:
            return cls._with(examples, like.penalty)
        parts = examples.folds(_FOLDS, seed)
        areas = []
        for penalty in PENALTIES:
            found = []
            for train, test in parts:
                fitted, held = cls._with(examples.select(train), penalty), examples.select(test)
                masses = tally(fitted.margin(held.x), held.wrong, held.weights[None])
                found.append(auroc(masses)[0])
            areas.append(float(np.mean(found)))
        best = max(areas)
        penalty = next(c for c, a in zip(PENALTIES, areas, strict=True) if a >= best - _CLOSE)
        return cls._with(examples, penalty)

    @classmethod
    def _with(cls, examples: Examples, penalty: float) -> Self:
        from sklearn.linear_model import LogisticRegression

        x, weights = examples.x, examples.weights / examples.weights.sum()
        mean = weights @ x
        spread = np.sqrt(weights @ (x - mean) ** 2)
        spread = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)
        share = weights @ examples.wrong
        balance = np.where(examples.wrong, 0.5 / share, 0.5 / (1 - share))
        model = LogisticRegression(C=penalty, max_iter=_ITERATIONS)
        model.fit(
            (x - mean) / spread, examples.wrong, sample_weight=weights * balance * len(weights)
        )
        coefficient = np.asarray(model.coef_[0], dtype=np.float64) / spread
        return cls(mean, coefficient, float(model.intercept_[0]), penalty)

    def margin(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, " N"]:
        """Log-odds that each step is wrong, were wrong and right steps equally many."""
        return (x - self.mean) @ self.coefficient + self.intercept

    @property
    def base(self) -> float:
        """The margin of a step at the mean of every column."""
        return self.intercept

    def contributions(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, "N C"]:
        """Coefficient times distance from the mean: exact."""
        return (x - self.mean) * self.coefficient

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""
        return {
            "mean": self.mean,
            "coefficient": self.coefficient,
            "scalars": np.array([self.intercept, self.penalty], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave, as an estimator again."""
        intercept, penalty = arrays["scalars"].tolist()
        return cls(arrays["mean"], arrays["coefficient"], intercept, penalty)

    def settings(self) -> dict[str, Any]:
        """What it was fitted with: the penalty that was chosen."""
        return {"penalty": self.penalty}
