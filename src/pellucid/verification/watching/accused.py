"""What speaks against a step: columns that the verifier read, and nodes of the step's graph.

A feature, or the error of a layer at a token (what its dictionary leaves out), is accused by what
the verifier would say without it: the node is taken out of the graph, the fingerprint is computed
again, and the change of the log-odds is its share. That says what moved the verifier. Whether the
node moved the model is for an intervention to say.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import ERROR, FEATURE, NODE_KINDS
from pellucid.verification.fingerprints.fingerprint import fingerprint
from pellucid.verification.reading.reader import StepReading
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.verifier import Verifier
from pellucid.verification.watching.row import as_steps
from pellucid.verification.watching.segments import Segment

TRIED = 12
"""Nodes that are taken out in turn: the most influential features and errors of the graph."""
_REASONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Accused:
    """A feature or an error node that speaks against a step.

    Attributes:
        kind: feature or error.
        target: of the graph that it is in.
        layer: where it is.
        index: of the feature, -1 for an error.
        position: where it is active.
        token: there.
        activation: there, 0 for an error.
        influence: its share of the graph's influence on the target.
        contribution: what it adds to the verifier's log-odds that the step is wrong.
    """

    kind: str
    target: str
    layer: int
    index: int
    position: int
    token: str
    activation: float
    influence: float
    contribution: float

    @property
    def name(self) -> str:
        """In words."""
        what = f"feature {self.index}" if self.kind == "feature" else "what is not explained"
        return f"{what} of layer {self.layer} at {self.token!r} (token {self.position})"

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"name": self.name}


def reasons(
    verifier: Verifier, row: StepSet, count: int = _REASONS
) -> tuple[tuple[str, float], ...]:
    """The columns that speak most against a step, with what each adds to its margin.

    Args:
        verifier: that judged it.
        row: the step, one row.
        count: the most columns to name.
    """
    added = verifier.contributions(row)[0]
    order = np.argsort(-added, kind="stable")[:count]
    return tuple((verifier.columns[n], float(added[n])) for n in order if added[n] > 0)


def accused_features(
    verifier: Verifier, segment: Segment, reading: StepReading, language: str, *, count: int
) -> tuple[Accused, ...]:
    """The features and error nodes of a step's graphs that speak most against it.

    Args:
        verifier: that judged it.
        segment: the step.
        reading: of the step, with its graphs.
        language: of the chain.
        count: the most nodes to name, over all graphs.
    """
    if not count:
        return ()
    found: list[Accused] = []
    for target, graph in reading.graphs.items():
        nodes, share = _candidates(graph)
        rows = [dict(reading.columns)]
        for node in nodes:
            without = fingerprint(_without(graph, node), segment.place)
            changed = {f"graph.{target}.{name}": value for name, value in without.items()}
            rows.append({**reading.columns, **changed})
        margins = verifier.margin(as_steps(segment, rows, language))
        for node, margin in zip(nodes, margins[1:].tolist(), strict=True):
            contribution = float(margins[0]) - margin
            if contribution > 0:
                found.append(_accused(graph, target, node, float(share[node]), contribution))
    return tuple(sorted(found, key=lambda each: -each.contribution)[:count])


def _candidates(graph: AttributionGraph) -> tuple[Sequence[int], np.ndarray]:
    """The most influential features and errors, and the share of influence of every node."""
    weight = influence(graph)
    share = weight / max(float(weight.sum()), 1e-30)
    able = np.flatnonzero(graph.nodes.is_kind(FEATURE, ERROR))
    return able[np.argsort(-share[able], kind="stable")][:TRIED].tolist(), share


def _without(graph: AttributionGraph, node: int) -> AttributionGraph:
    kept = np.ones(len(graph.nodes), dtype=bool)
    kept[node] = False
    edges = graph.edges
    return graph.subgraph(kept, (edges.source != node) & (edges.target != node))


def _accused(
    graph: AttributionGraph, target: str, node: int, share: float, contribution: float
) -> Accused:
    nodes = graph.nodes
    position = int(nodes.position[node])
    return Accused(
        kind=NODE_KINDS[nodes.kind[node]],
        target=target,
        layer=int(nodes.layer[node]),
        index=int(nodes.index[node]) if nodes.kind[node] == FEATURE else -1,
        position=position,
        token=graph.tokens[position].strip(),
        activation=float(nodes.activation[node]) if nodes.kind[node] == FEATURE else 0.0,
        influence=share,
        contribution=contribution,
    )
