"""A verifier's pipeline on some columns as one of the methods that an experiment compares."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import fitted, training
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.examples import Examples, chosen, readings, training_examples
from pellucid.verification.verifier.fitting import Pipeline
from pellucid.verification.verifier.settings import Settings


@final
@dataclass(slots=True, eq=False)
class ColumnsMethod(Method):
    """One fit, both classes weighing the same; no calibration, threshold or intervals.

    Attributes:
        name: in tables.
        rung: what its columns look at.
        settings: columns and estimator.
        without: columns with these prefixes are left out.
    """

    name: str
    rung: Rung
    settings: Settings
    without: tuple[str, ...] = ()
    _columns: tuple[str, ...] | None = None
    _pipeline: Pipeline | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Learn from training steps alone."""
        known = training(steps, self.name, seed=seed)
        columns = chosen(steps, self.settings.columns)
        self._columns = tuple(n for n in columns if not n.startswith(self.without or ("\0",)))
        examples = training_examples(steps, self._columns, within=self.settings.within)
        balanced = replace(examples, weights=known.balanced)
        self._pipeline = Pipeline.fit(balanced, self.settings, seed=seed)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The margin of each step."""
        columns = fitted(self._columns, self.name)
        seen = Examples.unlabelled(steps, readings(steps, columns), self.settings.within)
        return fitted(self._pipeline, self.name).margin(seen)
