"""The fingerprint of a step's graph: a few hundred named numbers, and sparse bags."""

from collections.abc import Iterator, Sequence

from pellucid.core.registry import Registry
from pellucid.graphs.graph import AttributionGraph
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.errors import ERRORS
from pellucid.verification.fingerprints.hashes import HASH
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.fingerprints.nodes import NODE
from pellucid.verification.fingerprints.paths import PATH
from pellucid.verification.fingerprints.roles import ROLE
from pellucid.verification.fingerprints.signs import SIGN
from pellucid.verification.fingerprints.topology import TOPOLOGICAL
from pellucid.verification.fingerprints.whole import GLOBAL
from pellucid.verification.steps.place import StepPlace

FAMILIES: Registry[Family] = Registry(
    "family of fingerprints",
    {
        "global": GLOBAL,
        "node": NODE,
        "topological": TOPOLOGICAL,
        "error": ERRORS,
        "role": ROLE,
        "path": PATH,
        "sign": SIGN,
        "hash": HASH,
    },
)
"""Name -> family; the first three are those of the paper (Zhao et al. 2025)."""


def fingerprint(
    graph: AttributionGraph | MeasuredGraph,
    place: StepPlace | None = None,
    families: Sequence[str] = tuple(FAMILIES),
) -> dict[str, float]:
    """The named numbers of a step's graph: finite, the same names for every graph of one model.

    Args:
        graph: unpruned, of a prefix of the chain that ends within the step or before it; or that
            graph with its place, already measured (which saves time where `bags` are read too).
        place: of the step; not needed with a measured graph.
        families: of `FAMILIES`, in any order.

    Raises:
        ConfigError: an unknown family.
        GraphError: the graph has more tokens than the place has roles.
    """
    chosen = [FAMILIES[name] for name in families]
    if isinstance(graph, AttributionGraph):
        assert place is not None, "give the step's place with a graph"
        graph = MeasuredGraph(graph, place)
    return {name: value for family in chosen for name, value in family.measure(graph).items()}


def definitions(families: Sequence[str] = tuple(FAMILIES)) -> Iterator[Definition]:
    """What every number is.

    Args:
        families: of `FAMILIES`.

    Raises:
        ConfigError: an unknown family.
    """
    for name in families:
        yield from FAMILIES[name].definitions


def column_names(
    n_layers: int,
    families: Sequence[str] = tuple(FAMILIES),
    *,
    without: Sequence[str] = (),
) -> list[str]:
    """Names of a fingerprint's numbers, in the order of their definitions.

    Args:
        n_layers: of the model.
        families: of `FAMILIES`.
        without: leave out what stands for these (`length`, `confidence`, `text`), so that what is
            left can only be read off a graph.

    Raises:
        ConfigError: an unknown family.
    """
    return [
        name
        for definition in definitions(families)
        if definition.stands not in without
        for name in definition.columns(n_layers)
    ]
