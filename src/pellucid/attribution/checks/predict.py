"""What a graph predicts for a change of its features."""

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE


def predicted_effects(
    graph: AttributionGraph, targets: Int64[np.ndarray, " T"], features: Int64[np.ndarray, " F"]
) -> tuple[Float64[np.ndarray, "T F"], Float64[np.ndarray, "T F"]]:
    """Effect of one unit of every feature on every target node: (direct, total).

    Direct: the edge. Total: the signed sum over all paths through the graph's features, where a
    feature answers a change of its pre-activation linearly: T[s] = A[target, s] +
    sum_t T[t] / a_t A[t, s]. Both are for a change by +1 times the feature's own activation, in
    the target's units (pre-activation, or logit less mean logit).
    """
    edges, nodes = graph.edges, graph.nodes
    starts = np.searchsorted(edges.target, np.arange(len(nodes) + 1))
    flow = np.zeros((len(targets), len(nodes)))
    for row, target in enumerate(targets):
        own = slice(starts[target], starts[target + 1])
        flow[row, edges.source[own]] = edges.weight[own]
    direct = flow[:, features]
    is_feature = nodes.is_kind(FEATURE)
    from_the_top = np.flatnonzero(is_feature)[np.argsort(-nodes.layer[is_feature], kind="stable")]
    for node in from_the_top:
        own = slice(starts[node], starts[node + 1])
        answer = flow[:, node, None] / nodes.activation[node]
        flow[:, edges.source[own]] += answer * edges.weight[own]
    return direct, flow[:, features]
