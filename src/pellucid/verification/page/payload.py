"""What the page of a chain is given: steps, their graphs, accused features, repairs; all JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.graphs.container import json_value
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page.payload import page_payload
from pellucid.graphs.tables import FEATURE
from pellucid.verification.watching.accused import Accused
from pellucid.verification.watching.band import Band
from pellucid.verification.watching.watch import WatchedStep

GRAPH_NODES, GRAPH_EDGES = 300, 3000
"""The most nodes and edges of a step's graph that the page holds."""
EXAMPLES, AROUND = 5, 4
Feature = tuple[int, int]
"""Layer and index."""


def chain_payload(
    prompt: str,
    steps: Sequence[WatchedStep],
    *,
    band: Band | None = None,
    repairs: Sequence[Mapping[str, Any]] = (),
    examples: Mapping[Feature, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """The page's data.

    Args:
        prompt: that the chain followed.
        steps: as they were judged, with their graphs where they are to be shown.
        band: that decided which graphs were needed.
        repairs: records of `step`, `outcome` and `tried`, a list of `feature`, `operation` and
            `outcome`.
        examples: top examples of features; those of this chain where a feature has none.
    """
    at_hand = dict(examples or {})
    tried: dict[int, list[Any]] = {}
    for record in repairs:
        tried.setdefault(int(record["step"]), []).append(_repair(record))
    return json_value(
        {
            "prompt": prompt,
            "steps": [
                step.to_json()
                | {
                    "accused": [_accused(each, steps, at_hand) for each in step.accused],
                    "graphs": {name: _graph(graph) for name, graph in step.graphs.items()},
                    "repairs": tried.get(step.segment.number, []),
                }
                for step in steps
            ],
            "band": None if band is None else band.to_json(),
        }
    )


def _graph(graph: AttributionGraph) -> dict[str, Any]:
    return page_payload(graph, max_nodes=GRAPH_NODES, max_edges=GRAPH_EDGES)


def _accused(
    accused: Accused,
    steps: Sequence[WatchedStep],
    known: Mapping[Feature, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    given = known.get((accused.layer, accused.index))
    shown = given if given is not None else _examples(accused, steps)
    return accused.to_json() | {"examples": [dict(each) for each in shown[:EXAMPLES]]}


def _examples(accused: Accused, steps: Sequence[WatchedStep]) -> list[dict[str, Any]]:
    """Where else in this chain the feature is active, strongest first, as far as graphs show."""
    if accused.kind != "feature":
        return []
    found: dict[int, tuple[float, AttributionGraph]] = {}
    for graph in (graph for step in steps for graph in step.graphs.values()):
        nodes = graph.nodes
        mine = nodes.is_kind(FEATURE) & (nodes.layer == accused.layer)
        for node in np.flatnonzero(mine & (nodes.index == accused.index)).tolist():
            found[int(nodes.position[node])] = (float(nodes.activation[node]), graph)
    strongest = sorted(found.items(), key=lambda each: -each[1][0])
    return [
        {
            "before": "".join(graph.tokens[max(0, at - AROUND) : at]),
            "token": graph.tokens[at],
            "after": "".join(graph.tokens[at + 1 : at + 1 + AROUND]),
            "activation": value,
        }
        for at, (value, graph) in strongest
    ]


def _repair(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "outcome": str(record["outcome"]),
        "tried": [
            {name: str(each.get(name, "")) for name in ("feature", "operation", "outcome")}
            for each in record.get("tried", ())
        ],
    }
