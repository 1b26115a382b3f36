"""Several methods as one: a reading of their scores of steps that they did not learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.probes.groups import Folds
from pellucid.verification.methods.logistic import Logistic, logistic
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import LEAST, fitted, training
from pellucid.verification.steps.step_set import StepSet


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A fitted method, its scores shifted and scaled as those of its training steps were."""

    method: Method
    mean: float
    spread: float

    @classmethod
    def fit(cls, method: Method, steps: StepSet, seed: int) -> "_Member":
        method.fit(steps, seed=seed)
        scores = method.score(steps)
        return cls(method, float(scores.mean()), float(scores.std()) or 1.0)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        return (self.method.score(steps) - self.mean) / self.spread


@final
@dataclass(slots=True, eq=False)
class Stacked(Method):
    """A logistic reading of other methods' scores.

    Each is fitted once a fold and scores the steps held out from it, which is what the reading
    learns from; a new step gets the mean of its scores over the folds. Where the steps are of
    several sources (models with different faults), a fold holds out a source, so that the reading
    learns whom to trust elsewhere; otherwise it holds out questions. Scores are in units of their
    spread over the steps that a method learned from.

    Attributes:
        name: in tables.
        rung: what the methods look at together.
        makers: of the methods.
    """

    name: str
    rung: Rung
    makers: Sequence[Callable[[], Method]]
    _parts: list[list[_Member]] | None = None
    _score: Logistic | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Fit every method once a fold, then the reading of their held-out scores."""
        known = training(steps, self.name, seed=seed, least=2 * LEAST)
        scores = np.zeros((len(steps), len(self.makers)))
        self._parts = []
        for learn, rest in _sources(steps) or known.folds:
            mine, other = steps.select(learn), steps.select(rest)
            part = [_Member.fit(make(), mine, seed) for make in self.makers]
            scores[rest] = np.stack([member.score(other) for member in part], axis=1)
            self._parts.append(part)
        self._score = logistic(scores, known)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The reading of the mean scores."""
        parts = fitted(self._parts, self.name)
        scores = np.mean([[member.score(steps) for member in part] for part in parts], axis=0)
        return fitted(self._score, self.name)(scores.T)


def _sources(steps: StepSet) -> Folds:
    """A fold a source, no question in both parts; none unless both parts of each can be used."""
    sources, groups = (steps.columns[name].astype(str) for name in ("source", "group"))
    found: Folds = []
    for source in np.unique(sources):
        rest = np.flatnonzero(sources == source)
        learn = np.flatnonzero((sources != source) & ~np.isin(groups, groups[rest]))
        for part in (learn, rest):
            wrong = int(steps.wrong[part].sum())
            if min(wrong, len(part) - wrong) < 2 * LEAST:
                return []
        found.append((learn, rest))
    return found
