"""What the experiment compares beyond the baselines: the graph alone, with others, and cut down.

The published method (Zhao et al. 2025) is `crv`; `graph` is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pellucid.verification.fingerprints.fingerprint import FAMILIES
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.registry import METHODS, WITHOUT_GRAPH
from pellucid.verification.methods.stacked import Stacked
from pellucid.verification.verifier.as_method import ColumnsMethod
from pellucid.verification.verifier.settings import Relative, Settings

PAPER = tuple(f"graph.after.{family}." for family in ("global", "node", "topological"))
"""The published families."""
UNEXPLAINED = ("graph.answer.error.", "graph.answer.global.")
"""What the answer's graph cannot follow back to features and tokens."""


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
) -> ColumnsMethod:
    normalise: Relative = "right" if estimator == "logistic" else "none"
    settings = Settings(columns=columns, estimator=estimator, normalise=normalise)
    return ColumnsMethod(name, "graph", settings, without)


_GRAPH: tuple[Callable[[], Method], ...] = (
    lambda: _columns("graph-errors", UNEXPLAINED, "histogram"),
    lambda: _columns("graph-logistic", ("graph.",)),
)
"""What the graph leaves unexplained, by trees; every number of every graph, by a line."""


def _stack(name: str, rung: Rung, *others: str) -> Callable[[], Method]:
    return lambda: Stacked(name, rung, (*_GRAPH, *(METHODS[each].make for each in others)))


OURS: Mapping[str, Entry] = {
    "crv": Entry(
        lambda: _columns("crv", PAPER, "boosting"),
        "graph",
        "the published features of the graph after the step, gradient boosting",
    ),
    "graph-errors": Entry(
        _GRAPH[0], "graph", "what the answer's graph leaves unexplained, boosted trees"
    ),
    "graph-logistic": Entry(_GRAPH[1], "graph", "every number of both graphs, logistic"),
    "graph": Entry(_stack("graph", "graph"), "graph", "a reading of the scores of the two above"),
    "graph+confidence": Entry(
        _stack("graph+confidence", "combined", "confidence-all"),
        "combined",
        "a reading of the scores of those two and of confidence-all",
    ),
    "everything": Entry(
        _stack("everything", "combined", *WITHOUT_GRAPH),
        "combined",
        "a reading of the scores of those two and of what without-graph reads",
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
