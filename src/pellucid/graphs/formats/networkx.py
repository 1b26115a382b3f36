"""An attribution graph as a NetworkX graph, for its algorithms and drawing tools."""

import math
from typing import Any

import networkx

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.scores import edge_influence, influence
from pellucid.graphs.tables import NODE_COLUMNS, NODE_KINDS


def to_networkx(graph: AttributionGraph) -> "networkx.DiGraph[str]":
    """The graph with an edge from every source to every target.

    Nodes are called as `node_names` calls them, in table order, and carry `kind` (its name),
    `layer`, `position`, `index`, `activation`, `probability`, `label`, `influence` and, if they
    are targets, `target_value`. Edges carry `weight` and `influence` (what flows through them).
    The graph carries `prompt`, `tokens`, `n_layers`, `scores` and `metadata`.
    """
    names, reached = node_names(graph), influence(graph).tolist()
    columns = {name: getattr(graph.nodes, name).tolist() for name in NODE_COLUMNS}
    values = graph.target_values.tolist()
    result: networkx.DiGraph[str] = networkx.DiGraph(
        prompt=graph.prompt,
        tokens=list(graph.tokens),
        n_layers=graph.n_layers,
        scores=dict(graph.scores),
        metadata=dict(graph.metadata),
    )
    for number, name in enumerate(names):
        attributes: dict[str, Any] = {key: column[number] for key, column in columns.items()}
        attributes["kind"] = NODE_KINDS[attributes["kind"]]
        attributes |= {"label": graph.nodes.label[number], "influence": reached[number]}
        if not math.isnan(values[number]):
            attributes["target_value"] = values[number]
        result.add_node(name, **attributes)
    edges, flow = graph.edges, edge_influence(graph).tolist()
    rows = zip(edges.source.tolist(), edges.target.tolist(), edges.weight.tolist(), strict=True)
    for (source, target, weight), share in zip(rows, flow, strict=True):
        result.add_edge(names[source], names[target], weight=weight, influence=share)
    return result
