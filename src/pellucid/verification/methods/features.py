"""What a method reads of a step, as a matrix of features; fitted without labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np

from pellucid.core.errors import DataError
from pellucid.verification.methods.logistic import CLIP, Matrix
from pellucid.verification.methods.training import finite, fitted
from pellucid.verification.steps.step_set import StepSet

Kind = Literal["arrays", "bags", "ragged"]


class Features(ABC):
    """A matrix of features of any steps, made the way the training steps asked for."""

    @abstractmethod
    def fit(self, steps: StepSet) -> None:
        """Learn what does not need labels: a vocabulary, a spread.

        Args:
            steps: the training steps.

        Raises:
            DataError: a reading that the steps do not have.
        """

    @abstractmethod
    def matrix(self, steps: StepSet) -> Matrix:
        """Features [N, F] of the steps.

        Args:
            steps: any steps with the same readings.
        """


def reading(steps: StepSet, kind: Kind, name: str) -> Matrix:
    """One of the steps' arrays, bags or ragged readings.

    Args:
        steps: the steps.
        kind: which sort of reading.
        name: its name.

    Raises:
        DataError: the steps have no such reading.
    """
    table = {"arrays": steps.arrays, "bags": steps.bags, "ragged": steps.ragged}[kind]
    if name not in table:
        raise DataError(
            f"these steps were collected without {name}; collect them again with the same readings"
        )
    return table[name]


@final
@dataclass(slots=True, eq=False)
class Columns(Features):
    """Columns, each twice: standardised, and as the normal score of its rank in training.

    The second form is what heavy tails need (a probability of a thousandth against a tenth). Few
    columns also get their squares and products, so that the middle can be told from both ends.

    Attributes:
        names: of the columns, or a function that finds them.
        products: whether squares and products of standardised columns are added.
    """

    names: Sequence[str] | Callable[[StepSet], list[str]]
    products: bool = False
    _found: list[str] | None = None
    _sorted: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def fit(self, steps: StepSet) -> None:
        """Keep the sorted training values of every column."""
        self._found = self.names(steps) if callable(self.names) else list(self.names)
        self._sorted = np.sort(self._values(steps), axis=0)

    def matrix(self, steps: StepSet) -> Matrix:
        """Standardised columns, normal scores, then products."""
        from scipy.stats import norm

        values = self._values(steps)
        mean, spread = self._sorted.mean(0), self._sorted.std(0)
        scale = np.where(spread > 1e-12 * (1 + np.abs(mean)), spread, np.inf)
        plain = np.clip((values - mean) / scale, -CLIP, CLIP)
        count = len(self._sorted)
        below, upto = (
            np.column_stack(
                [
                    np.searchsorted(known, each, side)
                    for known, each in zip(self._sorted.T, values.T, strict=True)
                ]
            )
            for side in ("left", "right")
        )
        normal = norm.ppf(np.clip((below + upto) / (2 * count), 0.5 / count, 1 - 0.5 / count))
        parts = [plain, normal]
        if self.products:
            first, second = np.triu_indices(plain.shape[1])
            parts.append(plain[:, first] * plain[:, second])
        return np.hstack(parts)

    def _values(self, steps: StepSet) -> np.ndarray:
        names = fitted(self._found, "a table of columns")
        return finite(steps.matrix(names), ", ".join(names[:3]))


@final
@dataclass(slots=True, eq=False)
class Bag(Features):
    """A sparse bag over dictionary features.

    Attributes:
        name: of the bag.
        form: `sum` over the step's tokens as collected; `mean` over them, so that a longer step
            does not count for more; `present`, 1 where a feature takes part at all.
    """

    name: str
    form: Literal["sum", "mean", "present"] = "sum"

    def fit(self, steps: StepSet) -> None:
        """Nothing is learned; the bag must be there."""
        reading(steps, "bags", self.name)

    def matrix(self, steps: StepSet) -> Matrix:
        """The bag in its form [N, V], sparse."""
        bag = reading(steps, "bags", self.name).tocsr().astype(np.float64)
        finite(bag.data, self.name)
        if self.form == "present":
            return (bag != 0).astype(np.float64).tocsr()
        if self.form == "sum":
            return bag
        from scipy.sparse import diags

        tokens = np.maximum(np.asarray(steps.columns["tokens"], dtype=np.float64), 1)
        return (diags(1 / tokens) @ bag).tocsr()


def beginning_with(prefix: str) -> Callable[[StepSet], list[str]]:
    """A function that finds the columns with a prefix, of which there must be one.

    Args:
        prefix: such as `error_norm.`.
    """

    def found(steps: StepSet) -> list[str]:
        if names := steps.named(prefix):
            return names
        raise DataError(
            f"these steps were collected without columns {prefix}*; collect them again with the "
            "same readings"
        )

    return found
