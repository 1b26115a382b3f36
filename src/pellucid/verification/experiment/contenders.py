"""What the experiment compares beyond the baselines: the graph alone, with others, and cut down.

The published method (Zhao et al. 2025) is `crv`; `graph` is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from pellucid.verification.fingerprints.fingerprint import FAMILIES
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.registry import METHODS
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
from pellucid.verification.verifier.settings import Relative, Settings

PAPER = tuple(f"graph.after.{family}." for family in ("global", "node", "topological"))
"""The published families."""
UNEXPLAINED = ("graph.answer.error.", "graph.answer.global.")
"""What the answer's graph cannot follow back to features and tokens."""


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
    """A method of the experiment: how to make it, its rung, and what it is in a line."""

    make: Callable[[], Method]
    rung: Rung
    says: str


def _columns(
    name: str,
    columns: tuple[str, ...],
    estimator: str = "logistic",
    without: tuple[str, ...] = (),
) -> Contender:
    normalise: Relative = "right" if estimator == "logistic" else "none"
    settings = Settings(columns=columns, estimator=estimator, normalise=normalise)
    return Contender(name, "graph", settings, without)


def _graph() -> tuple[Method, ...]:
    """What the graph leaves unexplained, by trees; every number of every graph, by a line."""
    return (
        _columns("graph-errors", UNEXPLAINED, "histogram"),
        _columns("graph-logistic", ("graph.",)),
    )


def _others() -> tuple[Method, ...]:
    """The best of every kind that needs no graph."""
    names = ("confidence-all", "text-structure-boosting", "error-norms", "logistic-probe")
    return tuple(METHODS[name].make() for name in names)


def _made(name: str, members: Callable[[], tuple[Method, ...]], rung: Rung) -> Callable[[], Method]:
    return lambda: Together(name, rung, members())


def _sure() -> tuple[Method, ...]:
    return (METHODS["confidence-all"].make(),)


OURS: Mapping[str, Entry] = {
    "crv": Entry(
        lambda: _columns("crv", PAPER, "boosting"),
        "graph",
        "the published features of the graph after the step, gradient boosting",
    ),
    "graph-errors": Entry(
        lambda: _graph()[0], "graph", "what the answer's graph leaves unexplained, boosted trees"
    ),
    "graph-logistic": Entry(lambda: _graph()[1], "graph", "every number of both graphs, logistic"),
    "graph": Entry(_made("graph", _graph, "graph"), "graph", "the two above together"),
    "graph+confidence": Entry(
        _made("graph+confidence", lambda: (*_graph(), *_sure()), "combined"),
        "combined",
        "graph and confidence-all together",
    ),
    "everything but the graph": Entry(
        _made("everything but the graph", _others, "combined"),
        "combined",
        "confidence-all, text-structure-boosting, error-norms and logistic-probe together",
    ),
    "everything": Entry(
        _made("everything", lambda: (*_graph(), *_others()), "combined"),
        "combined",
        "the graph and those",
    ),
}
"""Beyond the baselines."""


def _ablation(name: str, family: str) -> Entry:
    both = tuple(f"graph.{target}.{family}." for target in ("answer", "after"))
    if name.startswith("only"):
        return Entry(lambda: _columns(name, both), "graph", f"graph-logistic on {family} alone")
    return Entry(
        lambda: _columns(name, ("graph.",), without=both),
        "graph",
        f"graph-logistic without {family}",
    )


def contenders(*, ablations: bool = True) -> dict[str, Entry]:
    """Every method of the experiment, baselines first.

    Args:
        ablations: also the graph without each family of fingerprints, and each family alone.
    """
    found = {
        name: Entry(METHODS[name].make, METHODS[name].rung, METHODS[name].says) for name in METHODS
    }
    found |= OURS
    if ablations:
        names = [f"{kind} {family}" for family in FAMILIES for kind in ("without", "only")]
        found |= {name: _ablation(name, name.split(" ")[1]) for name in names}
    return found
