"""What a verifier learns from: chosen columns of labelled steps, checked before anything is fitted.

Suffixes: N steps, C columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.groups import Folds, folds
from pellucid.verification.steps.step_set import LABELS, StepSet

FEWEST = 10
"""Wrong steps that a training set must have."""
PLACES = ("number", "operators", "remaining", "start", "tokens")
"""Labels that a verifier may read: they say where a step stands, not whether it is wrong."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Steps as arrays.

    Attributes:
        x: the chosen columns, finite.
        tokens: how long each step is.
        domains: each step's domain, '' where domains are not told apart.
        wrong: the truth.
        groups: each step's question.
        weights: how much each step counts, 1 on average.
    """

    x: Float64[np.ndarray, "N C"]
    tokens: Float64[np.ndarray, " N"]
    domains: np.ndarray
    wrong: Bool[np.ndarray, " N"]
    groups: np.ndarray
    weights: Float64[np.ndarray, " N"]

    @classmethod
    def unlabelled(cls, steps: StepSet, x: Float64[np.ndarray, "N C"], within: str) -> "Examples":
        """Steps whose labels are not read: `wrong` is False throughout.

        Args:
            steps: any steps.
            x: their chosen columns.
            within: the column that tells domains apart; '' for one domain.

        Raises:
            DataError: there is no such column.
        """
        return cls(
            x=x,
            tokens=np.asarray(steps.columns["tokens"], dtype=np.float64),
            domains=domains_of(steps, within),
            wrong=np.zeros(len(steps), dtype=bool),
            groups=np.asarray(steps.columns["group"]).astype(str),
            weights=np.asarray(steps.columns["weight"], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.wrong)

    def select(self, rows: Int64[np.ndarray, " n"]) -> "Examples":
        """Some of the steps.

        Args:
            rows: their numbers, in the order wanted.
        """
        return Examples(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def with_x(self, x: Float64[np.ndarray, "N C"]) -> "Examples":
        """The same steps seen otherwise.

        Args:
            x: the new columns.
        """
        kept = {name: getattr(self, name) for name in self.__slots__ if name != "x"}
        return Examples(x=x, **kept)

    def folds(self, count: int, seed: int) -> Folds:
        """Rows of training and test parts that never cut a question.

        Args:
            count: how many parts, fewer where the questions do not fill them.
            seed: of the assignment.

        Raises:
            DataError: the questions cannot be split with both classes on both sides.
        """
        return folds(self.wrong, self.groups.tolist(), count=count, seed=seed)

    def drawn(self, rng: np.random.Generator) -> "Examples":
        """As many questions drawn with replacement, as weights; again until both classes are there.

        Each class comes from two questions at least, so that what was drawn can be split.

        Args:
            rng: of the draw.
        """
        names, member = np.unique(self.groups, return_inverse=True)
        while True:
            drawn = rng.integers(len(names), size=len(names))
            times = np.bincount(drawn, minlength=len(names))[member.reshape(-1)]
            kept = np.flatnonzero(times)
            sides = (self.groups[kept][self.wrong[kept] == side] for side in (True, False))
            if all(len(np.unique(side)) > 1 for side in sides):
                break
        part = self.select(kept)
        weights = part.weights * times[kept]
        return Examples(
            **{name: getattr(part, name) for name in self.__slots__ if name != "weights"},
            weights=weights / weights.mean(),
        )


def training_examples(steps: StepSet, names: Sequence[str], *, within: str = "") -> Examples:
    """Labelled steps as examples.

    Args:
        steps: to learn from.
        names: of the columns, as `chosen` gives them.
        within: the column that tells domains apart; '' for one domain.

    Raises:
        DataError: no steps, one class only, fewer than `FEWEST` wrong steps, a column that is
            missing, or a value that is not finite.
    """
    count, wrong = len(steps), steps.wrong
    positives = int(wrong.sum())
    if not count:
        raise DataError("there are no steps to learn from; collect some first")
    if positives in (0, count):
        raise DataError(
            f"{positives} of {count} training steps are wrong; a verifier needs right and wrong "
            "ones: collect more questions, deeper ones, or at a higher temperature"
        )
    if positives < FEWEST:
        raise DataError(
            f"only {positives} of {count} training steps are wrong; a verifier needs at least "
            f"{FEWEST}: collect more questions, deeper ones, or at a higher temperature"
        )
    weights = np.asarray(steps.columns["weight"], dtype=np.float64)
    if not (np.isfinite(weights).all() and weights.min() > 0):
        raise DataError("the weight of a training step is not above 0; leave such steps out")
    return Examples(
        x=readings(steps, names),
        tokens=np.asarray(steps.columns["tokens"], dtype=np.float64),
        domains=domains_of(steps, within),
        wrong=wrong,
        groups=np.asarray(steps.columns["group"]).astype(str),
        weights=weights / weights.mean(),
    )


def domains_of(steps: StepSet, within: str) -> np.ndarray:
    """Each step's domain.

    Args:
        steps: any steps.
        within: the column that tells domains apart; '' for one domain.

    Raises:
        DataError: there is no such column.
    """
    if not within:
        return np.full(len(steps), "")
    if within not in steps.columns:
        raise DataError(f"these steps have no column {within!r} to tell domains apart")
    return np.asarray(steps.columns[within]).astype(str)


def readings(steps: StepSet, names: Sequence[str]) -> Float64[np.ndarray, "N C"]:
    """The columns that a verifier reads.

    Args:
        steps: any steps.
        names: of the columns.

    Raises:
        DataError: a column is missing, or a value is not finite.
    """
    x = steps.matrix(names)
    bad = ~np.isfinite(x)
    if bad.any():
        column = int(np.argmax(bad.any(0)))
        raise DataError(
            f"column {names[column]!r} is not finite in {int(bad[:, column].sum())} of {len(x)} "
            f"steps (first in row {int(np.argmax(bad[:, column]))}); leave the column out or "
            "collect the steps again"
        )
    return x


def chosen(steps: StepSet, wanted: Sequence[str]) -> tuple[str, ...]:
    """The columns meant by names and prefixes, in the order asked for, each once.

    Args:
        steps: that have them.
        wanted: names of columns, or prefixes such as `graph.` or `graph.answer.error`.

    Raises:
        ConfigError: a name is a label that gives the answer away, or nothing is wanted.
        DataError: nothing begins so, or a column holds no numbers.
    """
    found: dict[str, None] = {}
    for want in wanted:
        if want in LABELS and want not in PLACES:
            raise ConfigError(
                f"column {want!r} is a label, not a reading; of the labels a verifier may read "
                f"only {', '.join(PLACES)}"
            )
        names = [want] if want in steps.columns else steps.named(want)
        names = [name for name in names if name not in LABELS or name == want]
        if not names or not want:
            prefixes = sorted({n.split(".")[0] + "." for n in steps.columns if n not in LABELS})
            raise DataError(
                f"no column is named {want!r} or begins so; these steps have "
                f"{', '.join(prefixes) or 'labels only'}"
            )
        found |= dict.fromkeys(names)
    if not found:
        raise ConfigError("no columns were chosen; name some, or a prefix such as 'graph.'")
    for name in found:
        if not np.issubdtype(np.asarray(steps.columns[name]).dtype, np.number):
            raise DataError(f"column {name!r} holds no numbers; leave it out")
    return tuple(found)
