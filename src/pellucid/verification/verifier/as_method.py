"""An estimator on some columns as one of the methods that an experiment compares."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float

from pellucid.core.errors import ConfigError
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.examples import Examples, chosen, readings, training_examples
from pellucid.verification.verifier.fitting import Pipeline
from pellucid.verification.verifier.settings import Settings


@final
class ColumnsMethod(Method):
    """A verifier without calibration, threshold and intervals: one fit, for its order of steps.

    Args:
        name: in tables.
        rung: what its columns look at.
        columns: names and prefixes.
        **choices: other fields of `Settings`, such as `estimator` and `normalise`.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """

    def __init__(self, name: str, rung: Rung, columns: Sequence[str], **choices: Any) -> None:
        self.name, self.rung = name, rung
        self.settings = Settings(columns=tuple(columns), **choices)
        self.columns: tuple[str, ...] = ()
        self._fitted: Pipeline | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Learn from training steps alone."""
        self.columns = chosen(steps, self.settings.columns)
        examples = training_examples(steps, self.columns, within=self.settings.within)
        self._fitted = Pipeline.fit(examples, self.settings, seed=seed)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The margin of each step."""
        if self._fitted is None:
            raise ConfigError(f"{self.name} was not fitted; call fit first")
        seen = Examples.unlabelled(steps, readings(steps, self.columns), self.settings.within)
        return self._fitted.margin(seen)
