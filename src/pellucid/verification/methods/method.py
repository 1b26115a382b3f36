"""What every way to tell wrong steps from right ones has in common."""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from jaxtyping import Float

from pellucid.verification.steps.step_set import StepSet

Rung = Literal[
    "length",
    "text",
    "confidence",
    "hidden",
    "activations",
    "error",
    "direct",
    "graph",
    "combined",
]
"""What a method may look at; the ladder of the experiment goes up these rungs."""


class Method(ABC):
    """Learns from labelled steps, then gives any step a score.

    Attributes:
        name: in tables.
        rung: what it looks at.
    """

    name: str
    rung: Rung

    @abstractmethod
    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Learn from training steps alone; a choice (layer, strength) is made on a grouped part.

        Args:
            steps: the training steps.
            seed: of everything random.

        Raises:
            DataError: only one class, too few wrong steps, or columns that are missing.
        """

    @abstractmethod
    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """One number a step, higher where it is more likely wrong.

        Args:
            steps: any steps with the columns that it was fitted on.
        """
