"""What the experiment compares beyond the baselines: the graph alone, with others, and cut down.

The three rungs above the baselines:

    crv        the published method: its three families of numbers of the graph "after" the step,
               gradient boosting with its defaults (Zhao et al. 2025)
    graph      every number of every graph
    combined   the graph and confidence together; everything but the graph; everything
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.training import fitted, training
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.examples import (
    Examples,
    chosen,
    domains_of,
    readings,
    training_examples,
)
from pellucid.verification.verifier.fitting import Pipeline
from pellucid.verification.verifier.settings import Settings

PAPER = tuple(f"graph.after.{family}." for family in ("global", "node", "topological"))
"""The published families."""


@final
@dataclass(slots=True, eq=False)
class Contender(Method):
    """A verifier's pipeline, both classes weighing the same.

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
        """Fit the pipeline to the training steps."""
        known = training(steps, self.name, seed=seed)
        columns = chosen(steps, self.settings.columns)
        self._columns = tuple(n for n in columns if not n.startswith(self.without or ("\0",)))
        examples = training_examples(steps, self._columns, within=self.settings.within)
        balanced = replace(examples, weights=known.balanced)
        self._pipeline = Pipeline.fit(balanced, self.settings, seed=seed)

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The pipeline's margin."""
        columns = fitted(self._columns, self.name)
        seen = Examples(
            x=readings(steps, columns),
            tokens=np.asarray(steps.columns["tokens"], dtype=np.float64),
            domains=domains_of(steps, self.settings.within),
            wrong=np.zeros(len(steps), dtype=bool),
            groups=np.asarray(steps.columns["group"]),
            weights=np.ones(len(steps)),
        )
        return fitted(self._pipeline, self.name).margin(seen)


@final
@dataclass(slots=True, eq=False)
class Together(Method):
    """Several methods, their scores standardised on the training steps and averaged.

    Attributes:
        name: in tables.
        rung: the highest of its members.
        members: unfitted methods.
    """

    name: str
    rung: Rung
    members: tuple[Method, ...]
    _scale: list[tuple[float, float]] | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Fit every member."""
        self._scale = []
        for member in self.members:
            member.fit(steps, seed=seed)
            scores = member.score(steps)
            self._scale.append((float(np.mean(scores)), float(np.std(scores)) or 1.0))

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The mean of the members' standardised scores."""
        scales = fitted(self._scale, self.name)
        scored = [
            (member.score(steps) - mean) / spread
            for member, (mean, spread) in zip(self.members, scales, strict=True)
        ]
        return np.mean(scored, axis=0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A method of the experiment: how to make it, and its rung."""

    make: Callable[[], Method]
    rung: Rung

