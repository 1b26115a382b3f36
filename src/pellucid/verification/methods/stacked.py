"""Several methods as one: a reading of their scores of steps that they did not learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.logistic import Logistic, logistic
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import LEAST, fitted, training
from pellucid.verification.steps.step_set import StepSet


@final
@dataclass(slots=True, eq=False)
class Stacked(Method):
    """A logistic reading of other methods' scores.

    Each is fitted once a fold and scores the questions held out from it, which is what the reading
    learns from; a new step gets the mean of its scores over the folds.

    Attributes:
        name: in tables.
        rung: what the methods look at together.
        makers: of the methods.
    """

    name: str
    rung: Rung
    makers: Sequence[Callable[[], Method]]
    _parts: list[list[Method]] | None = None
    _score: Logistic | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Fit every method once a fold, then the reading of their held-out scores."""
        known = training(steps, self.name, seed=seed, least=2 * LEAST)
        scores = np.zeros((len(steps), len(self.makers)))
        parts = []
        for learn, rest in known.folds:
            methods = [make() for make in self.makers]
            mine, other = steps.select(learn), steps.select(rest)
            for number, method in enumerate(methods):
                method.fit(mine, seed=seed)
                scores[rest, number] = method.score(other)
            parts.append(methods)
        self._parts, self._score = parts, logistic(scores, known)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The reading of the mean scores."""
        parts = fitted(self._parts, self.name)
        scores = np.mean([[method.score(steps) for method in methods] for methods in parts], axis=0)
        return fitted(self._score, self.name)(scores.T)
