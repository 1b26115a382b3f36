"""How much of a prediction each node carries, and how much of it features explain.

The measure is circuit-tracer's (Ameisen et al. 2025, "Circuit Tracing"): absolute edge weights,
each target's row normalised to 1, and the series w A + w A^2 + ... from the logits' probabilities
w. The graph is a DAG, so one sweep from the logits back sums the series exactly.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, LOGIT, TOKEN

MIN_ROW_SUM = 1e-10


class Scores(NamedTuple):
    """Two figures in 0..1 that say how far a graph rests on features rather than on errors.

    Attributes:
        replacement: share of the influence at the graph's inputs that tokens hold, not errors.
        completeness: influence-weighted share of nodes' inputs that does not come from errors.
    """

    replacement: float
    completeness: float


def influence(graph: AttributionGraph, *, include_bias: bool = False) -> Float64[np.ndarray, " N"]:
    """The influence of every node on the logits, summed over all paths.

    Args:
        graph: the graph.
        include_bias: let bias nodes take their share; by default they are left out of the
            normalisation too, as in the reference, which has no such nodes.
    """
    return sweep(graph, edge_shares(graph, include_bias=include_bias))


def edge_influence(
    graph: AttributionGraph, *, include_bias: bool = False
) -> Float64[np.ndarray, " E"]:
    """The influence that flows through every edge: its share of the target's row, times the
    target's influence (for a logit: plus its probability)."""
    shares = edge_shares(graph, include_bias=include_bias)
    reached = sweep(graph, shares) + logit_weights(graph)
    return shares * reached[graph.edges.target]


def scores(graph: AttributionGraph, *, include_bias: bool = False) -> Scores:
    """Replacement and completeness of a graph; NaN where no influence reaches any input."""
    nodes, edges = graph.nodes, graph.edges
    shares = edge_shares(graph, include_bias=include_bias)
    reached = sweep(graph, shares)
    tokens = reached[nodes.kind == TOKEN].sum()
    errors = reached[nodes.kind == ERROR].sum()
    output = reached + logit_weights(graph)
    of_errors = _row_sums(
        shares * (nodes.kind == ERROR)[edges.source], edges.row_starts(len(nodes))
    )
    from_errors = output @ of_errors
    return Scores(
        replacement=_ratio(tokens, tokens + errors),
        completeness=_ratio(output.sum() - from_errors, output.sum()),
    )


def logit_weights(graph: AttributionGraph) -> Float64[np.ndarray, " N"]:
    """The probability of every logit node, 0 elsewhere: where the series starts."""
    is_logit = graph.nodes.kind == LOGIT
    return np.where(is_logit, graph.nodes.probability, 0).astype(np.float64)


def edge_shares(
    graph: AttributionGraph,
    *,
    include_bias: bool = False,
    keep: Bool[np.ndarray, " E"] | None = None,
) -> Float64[np.ndarray, " E"]:
    """Every edge's absolute weight as a share of its target's row, over the edges that count.

    Args:
        graph: the graph.
        include_bias: count edges that come from bias nodes.
        keep: count only these edges; the others get share 0.
    """
    edges, n_nodes = graph.edges, len(graph.nodes)
    size = np.abs(edges.weight, dtype=np.float64)
    is_bias = graph.nodes.kind == BIAS
    if not include_bias and is_bias.any():
        size *= ~is_bias[edges.source]
    if keep is not None:
        size *= keep
    starts = edges.row_starts(n_nodes)
    row_sum = _row_sums(size, starts)
    size /= np.repeat(np.maximum(row_sum, MIN_ROW_SUM), np.diff(starts))
    return size


def sweep(graph: AttributionGraph, shares: Float64[np.ndarray, " E"]) -> Float64[np.ndarray, " N"]:
    """Sum the series of `shares` over all paths from the logits, one rank of targets at a time."""
    edges, size = graph.edges, len(graph.nodes)
    start = logit_weights(graph)
    reached = np.zeros(size)
    starts = edges.row_starts(size)
    # Nodes that can be targets (features, then logits) stand in the order of their rank, and no
    # edge joins two targets of one rank: when a rank's turn comes, all its inputs are summed.
    targets = np.flatnonzero(np.diff(starts))
    bounds = np.flatnonzero(np.diff(graph.nodes.rank()[targets])) + 1
    for same_rank in reversed(np.split(targets, bounds)):
        if len(same_rank) == 0:
            continue
        first, last = same_rank[0], same_rank[-1] + 1
        rows = slice(starts[first], starts[last])
        flow = reached[first:last] + start[first:last]
        per_edge = np.repeat(flow, np.diff(starts[first : last + 1])) * shares[rows]
        reached += np.bincount(edges.source[rows], per_edge, minlength=size)
    return reached


def _row_sums(
    values: Float64[np.ndarray, " E"], starts: Int64[np.ndarray, " N1"]
) -> Float64[np.ndarray, " N"]:
    sums = np.zeros(len(starts) - 1)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        sums[filled] = np.add.reduceat(values, starts[filled])
    return sums


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
