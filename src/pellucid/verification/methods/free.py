"""One free score on its own, as published methods use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import best, finite, fitted, training
from pellucid.verification.steps.step_set import StepSet


@final
@dataclass(slots=True, eq=False)
class FreeScore(Method):
    """A column as it is, turned the way that separates the training steps.

    Published methods fix the direction; where a score points the wrong way in training (energy and
    Chain-of-Embedding sometimes do) it is turned round, which can only make it a stronger rival.

    Attributes:
        name: in tables.
        columns: to choose from on the training steps (temperatures); one for a plain score.
        rung: what it looks at.
    """

    name: str
    columns: Sequence[str]
    rung: Rung = "confidence"
    _chosen: tuple[str, float] | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Choose the column and its sign by weighted AUROC on the training steps."""
        values = dict(zip(self.columns, self._values(steps, self.columns).T, strict=True))
        known = training(steps, self.name, seed=seed)
        rows = np.arange(len(steps))
        areas = {name: known.separation(each, rows) for name, each in values.items()}
        name = best(areas, lambda each: abs(areas[each] - 0.5))
        self._chosen = name, 1.0 if areas[name] >= 0.5 else -1.0

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The chosen column times its sign."""
        name, sign = fitted(self._chosen, self.name)
        return sign * self._values(steps, [name])[:, 0]

    @property
    def chosen(self) -> tuple[str, float]:
        """The column, and -1 where it was turned round.

        Raises:
            ConfigError: the method has not been fitted.
        """
        return fitted(self._chosen, self.name)

    def _values(self, steps: StepSet, names: Sequence[str]) -> np.ndarray:
        return finite(steps.matrix(names), self.name)
