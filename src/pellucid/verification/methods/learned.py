"""Methods that learn one estimator from one matrix of features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.boosting import boosting
from pellucid.verification.methods.features import Features
from pellucid.verification.methods.logistic import Matrix, held_out, logistic
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import Training, best, fitted, training
from pellucid.verification.steps.step_set import StepSet

Estimator = Callable[[Matrix, Training], Callable[[Matrix], Float[np.ndarray, " N"]]]
_TRIAL = 0.03

__all__ = ["Learned", "boosting", "logistic"]


@final
@dataclass(slots=True, eq=False)
class Learned(Method):
    """An estimator over the features that separate held-out questions best.

    Attributes:
        name: in tables.
        rung: what the features look at.
        forms: features to choose from, by a logistic reading of held-out questions.
        estimator: `logistic` or `boosting`.
    """

    name: str
    rung: Rung
    forms: Sequence[Features]
    estimator: Estimator = logistic
    _features: Features | None = None
    _score: Callable[[Matrix], Float[np.ndarray, " N"]] | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Choose the form of the features, then fit the estimator to all training steps."""
        known = training(steps, self.name, seed=seed)
        for each in self.forms:
            each.fit(steps)
        made = {n: each.matrix(steps) for n, each in enumerate(self.forms)}
        chosen = best(made, lambda n: held_out(made[n], known, _TRIAL)) if len(made) > 1 else 0
        self._features, self._score = self.forms[chosen], self.estimator(made[chosen], known)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The estimator's margin."""
        features = fitted(self._features, self.name)
        return fitted(self._score, self.name)(features.matrix(steps))
