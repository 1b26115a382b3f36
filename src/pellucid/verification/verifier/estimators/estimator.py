"""What every estimator can do: learn, score, say which columns spoke, and be written down."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float64

from pellucid.verification.verifier.examples import Examples

Arrays = Mapping[str, np.ndarray]


class Estimator(ABC):
    """A fitted estimator; suffixes N steps, C columns.

    It is arrays and a few settings, evaluated by code of this package: what is read back from a
    file gives the same numbers to the last bit.

    Attributes:
        name: in settings and on the command line.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, examples: Examples, *, seed: int, like: Self | None = None) -> Self:
        """Learn from steps; the same steps and seed give the same estimator.

        Args:
            examples: the training steps, both classes among them.
            seed: of everything random.
            like: what this one chose is taken over instead of chosen anew, so that the margins of
                both have the same scale.
        """

    @abstractmethod
    def margin(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, " N"]:
        """Log-odds that each step is wrong, before calibration.

        Args:
            x: the columns it was fitted on.
        """

    @property
    @abstractmethod
    def base(self) -> float:
        """The margin before any column has spoken."""

    @abstractmethod
    def contributions(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, "N C"]:
        """What each column added to the margin: with `base` they sum to it.

        Args:
            x: the columns it was fitted on.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave, as an estimator again.

        Args:
            arrays: by name.

        Raises:
            ValueError: they do not form an estimator.
            KeyError: one is missing.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it was fitted with, JSON-able, for the record."""
