"""Pruning a graph to the nodes and edges that carry most of the influence."""

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import edge_shares, influence, logit_weights, sweep
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN

NODE_THRESHOLD, EDGE_THRESHOLD = 0.8, 0.98
"""Shares of influence that are usually kept."""


def prune(
    graph: AttributionGraph,
    node_threshold: float = NODE_THRESHOLD,
    edge_threshold: float = EDGE_THRESHOLD,
    *,
    include_bias: bool = False,
) -> AttributionGraph:
    """Keep the most influential nodes, then the most influential edges, then drop loose ends.

    The rule is circuit-tracer's. Nodes are kept, in descending influence, until their share of
    all influence reaches `node_threshold` (ties with the last one stay; tokens and logits always
    do). Rows are normalised again over what is left and edges are kept the same way. Then
    features and errors without an outgoing edge, and features without an incoming one, go until
    none is left. Since influence is measured anew, pruning a pruned graph prunes further.

    Args:
        graph: the graph.
        node_threshold: share of node influence to keep, 0..1.
        edge_threshold: share of edge influence to keep, 0..1.
        include_bias: treat bias nodes like errors; by default they are dropped.

    Raises:
        GraphError: a threshold outside 0..1.
    """
    return graph.subgraph(
        *surviving(graph, node_threshold, edge_threshold, include_bias=include_bias)
    )


def surviving(
    graph: AttributionGraph,
    node_threshold: float,
    edge_threshold: float,
    *,
    include_bias: bool = False,
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " E"]]:
    """Which nodes and which edges `prune` keeps; arguments and errors as there."""
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= value <= 1:
            raise GraphError(f"{name} is {value}; give a share between 0 and 1")
    kind = graph.nodes.kind
    keep_nodes = most_influential(influence(graph, include_bias=include_bias), node_threshold)
    if not include_bias:
        keep_nodes &= kind != BIAS
    keep_nodes |= np.isin(kind, (TOKEN, LOGIT))
    flow = flow_between(graph, keep_nodes, include_bias=include_bias)
    keep_edges = most_influential(flow, edge_threshold) & (flow > 0)
    return _drop_loose_ends(graph, keep_nodes, keep_edges)


def flow_between(
    graph: AttributionGraph, keep_nodes: Bool[np.ndarray, " N"], *, include_bias: bool = False
) -> Float64[np.ndarray, " E"]:
    """The influence through every edge when only `keep_nodes` are left; 0 for the other edges."""
    edges = graph.edges
    inside = keep_nodes[edges.target] & keep_nodes[edges.source]
    shares = edge_shares(graph, include_bias=include_bias, keep=inside)
    return shares * (sweep(graph, shares) + logit_weights(graph))[edges.target]


def most_influential(values: Float64[np.ndarray, " M"], threshold: float) -> Bool[np.ndarray, " M"]:
    """The fewest largest `values` whose sum reaches `threshold` of the total, ties included."""
    if not values.any():
        return np.zeros(len(values), dtype=bool)
    descending = np.sort(values)[::-1]
    cumulative = np.cumsum(descending)
    last = np.searchsorted(cumulative / cumulative[-1], threshold)
    return values >= descending[min(int(last), len(values) - 1)]


def cumulative_influence(values: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """For every node, the share of all influence held by it and the nodes above it.

    Low means important; this is what a pruning slider is compared with.
    """
    order = np.argsort(-values, kind="stable")
    total = values.sum()
    result = np.ones(len(values))
    if total > 0:
        result[order] = np.minimum(np.cumsum(values[order]) / total, 1)
    return result


def _drop_loose_ends(
    graph: AttributionGraph, keep_nodes: np.ndarray, keep_edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    edges, size = graph.edges, len(graph.nodes)
    needs_output = graph.nodes.is_kind(FEATURE, ERROR, BIAS)
    needs_input = graph.nodes.kind == FEATURE
    while True:
        has_output = np.bincount(edges.source[keep_edges], minlength=size) > 0
        has_input = np.bincount(edges.target[keep_edges], minlength=size) > 0
        survivors = keep_nodes & (has_output | ~needs_output) & (has_input | ~needs_input)
        if (survivors == keep_nodes).all():
            return keep_nodes, keep_edges
        keep_nodes = survivors
        keep_edges = keep_edges & keep_nodes[edges.target] & keep_nodes[edges.source]
