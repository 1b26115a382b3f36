"""What every method learns from: labels, weights, and folds that never cut a question."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.groups import Folds, folds
from pellucid.probes.metrics import auroc
from pellucid.verification.steps.step_set import StepSet

LEAST = 10
"""Wrong steps, and right ones, below which nothing is learned."""
FOLDS = 3

T = TypeVar("T")
Rows = np.ndarray
Scores = Float[np.ndarray, " N"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """The labels of N training steps, and how a choice is judged on them.

    Attributes:
        labels: True for a wrong step.
        counts: how many steps each stands for (the column `weight`).
        balanced: `counts` scaled so that both classes weigh the same and their mean is 1; what
            every estimator is fitted with.
        folds: training and held-out rows, no question in both; what is chosen is chosen here.
        seed: of everything random.
    """

    labels: Bool[np.ndarray, " N"]
    counts: Float[np.ndarray, " N"]
    balanced: Float[np.ndarray, " N"]
    folds: Folds
    seed: int

    def separation(self, scores: Scores, rows: Rows) -> float:
        """Weighted AUROC of the scores of some rows."""
        return auroc(scores, self.labels[rows], self.counts[rows])


def training(steps: StepSet, name: str, *, seed: int, least: int = LEAST) -> Training:
    """Labels, weights and folds of training steps.

    Args:
        steps: the training steps.
        name: of the method, for the message.
        seed: of the folds and of the method.
        least: how many wrong steps, and right ones, it needs.

    Raises:
        DataError: only one class, fewer than `least` steps of one, a weight that is no positive
            number, or questions that cannot be split.
    """
    labels = steps.wrong
    counts = np.asarray(steps.columns["weight"], dtype=np.float64)
    wrong = int(labels.sum())
    if min(wrong, len(labels) - wrong) < least:
        raise DataError(
            f"{wrong} of {len(labels)} training steps are wrong; {name} needs at least {least} "
            "wrong and as many right ones: collect more chains, or harder questions"
        )
    if not (np.isfinite(counts) & (counts > 0)).all():
        raise DataError(
            f"the column weight has values down to {counts.min():g}; give every training step a "
            "positive weight"
        )
    shares = np.where(labels, counts[labels].sum(), counts[~labels].sum())
    return Training(
        labels=labels,
        counts=counts,
        balanced=counts / shares * len(labels) / 2,
        folds=folds(labels, [str(each) for each in steps.columns["group"]], count=FOLDS, seed=seed),
        seed=seed,
    )


def best(candidates: Iterable[T], held_out: Callable[[T], float]) -> T:
    """The candidate with the highest figure, the first of equals.

    Args:
        candidates: what to choose from.
        held_out: how good one is, on rows that it was not fitted on.
    """
    return max(candidates, key=held_out)


def fitted(value: T | None, name: str) -> T:
    """What `fit` left behind.

    Args:
        value: that, or None.
        name: of the method.

    Raises:
        ConfigError: the method has not been fitted.
    """
    if value is None:
        raise ConfigError(f"{name} has not been fitted; call fit with training steps first")
    return value


def finite(x: np.ndarray, what: str) -> np.ndarray:
    """The values, when all of them are finite.

    Args:
        x: the values.
        what: they are, for the message.

    Raises:
        DataError: one is not finite.
    """
    if bad := int((~np.isfinite(x)).sum()):
        raise DataError(f"{bad} values of {what} are not finite; collect these steps again")
    return x
