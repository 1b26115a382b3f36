"""Our graphs beside those of circuit-tracer: the same layout, and what differs.

circuit-tracer's `adjacency[target, source]` runs over the selected features (by layer, position,
index), one error for every layer and position, the tokens, and the logits, most probable first. It
has no nodes for constants, and its errors at the first position are zero. At that position (BOS)
it still pulls gradients through a transcoder's skip connection, where we take the whole MLP output
as a constant; so with skip connections the first token's effects differ, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphComparison:
    """How far a graph of ours is from one of circuit-tracer.

    Attributes:
        shared_features: feature nodes that both have.
        differing_features: feature nodes that only one has.
        max_activation_difference: over the shared features, relative to the largest activation.
        max_probability_difference: over the logits.
        max_edge_difference: over the edges between shared nodes, relative to the largest edge.
    """

    shared_features: int
    differing_features: int
    max_activation_difference: float
    max_probability_difference: float
    max_edge_difference: float


def feature_keys(graph: AttributionGraph) -> Int64[np.ndarray, "F 3"]:
    """(layer, position, index) of every feature node, in node order."""
    nodes, chosen = graph.nodes, graph.nodes.is_kind(FEATURE)
    return np.stack([nodes.layer[chosen], nodes.position[chosen], nodes.index[chosen]], axis=1)


def adjacency(graph: AttributionGraph) -> Float32[np.ndarray, "N N"]:
    """The graph's edges in circuit-tracer's layout; edges from constants are left out."""
    nodes, n_positions = graph.nodes, len(graph.tokens)
    n_features, n_logits = (int(nodes.is_kind(kind).sum()) for kind in (FEATURE, LOGIT))
    token_start = n_features + graph.n_layers * n_positions
    logit_start = token_start + n_positions
    slot = np.full(len(nodes), -1)
    slot[nodes.is_kind(FEATURE)] = np.arange(n_features)
    errors, tokens = nodes.is_kind(ERROR), nodes.is_kind(TOKEN)
    slot[errors] = n_features + nodes.layer[errors] * n_positions + nodes.position[errors]
    slot[tokens] = token_start + nodes.position[tokens]
    slot[nodes.is_kind(LOGIT)] = logit_start + np.arange(n_logits)
    kept = nodes.kind[graph.edges.source] != BIAS
    matrix = np.zeros((logit_start + n_logits,) * 2, dtype=np.float32)
    target, source = slot[graph.edges.target[kept]], slot[graph.edges.source[kept]]
    matrix[target, source] = graph.edges.weight[kept]
    return matrix


def compare(
    graph: AttributionGraph, theirs: Mapping[str, np.ndarray], *, skip: bool = False
) -> GraphComparison:
    """Compare with what circuit-tracer computed for the same model, transcoders and prompt.

    Args:
        graph: ours.
        theirs: the tensors that `benchmarks/peers/circuit_tracer_trace.py` writes.
        skip: the transcoders have skip connections; the first token's effects are left out.
    """
    logits = graph.nodes.is_kind(LOGIT)
    assert graph.nodes.index[logits].tolist() == theirs["logit_tokens"].tolist(), "other logits"
    selected = theirs["selected_features"]
    our_slots, their_slots = _shared(feature_keys(graph), theirs["active_features"][selected])
    counts = len(feature_keys(graph)), len(selected)
    our_activations = graph.nodes.activation[graph.nodes.is_kind(FEATURE)][our_slots]
    their_activations = theirs["activations"][selected][their_slots]
    ours = _restricted(adjacency(graph), our_slots, counts[0])
    other = _restricted(theirs["adjacency"], their_slots, counts[1])
    if skip:
        first_token = len(our_slots) + graph.n_layers * len(graph.tokens)
        ours, other = (np.delete(matrix, first_token, axis=1) for matrix in (ours, other))
    return GraphComparison(
        shared_features=len(our_slots),
        differing_features=sum(counts) - 2 * len(our_slots),
        max_activation_difference=_relative(our_activations, their_activations),
        max_probability_difference=float(
            np.abs(graph.nodes.probability[logits] - theirs["logit_probabilities"]).max()
        ),
        max_edge_difference=_relative(ours, other),
    )


def _shared(ours: np.ndarray, theirs: np.ndarray) -> tuple[list[int], list[int]]:
    """Where the features that both have stand in each list."""
    their_slot = {tuple(key): slot for slot, key in enumerate(theirs.tolist())}
    pairs = [
        (slot, their_slot[tuple(key)])
        for slot, key in enumerate(ours.tolist())
        if tuple(key) in their_slot
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _restricted(matrix: np.ndarray, slots: list[int], n_features: int) -> np.ndarray:
    """The rows and columns of some features and of all other nodes."""
    if len(slots) == n_features:
        return matrix
    kept = np.concatenate([slots, np.arange(n_features, len(matrix))]).astype(int)
    return matrix[np.ix_(kept, kept)]


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to their largest value (0 where there is nothing)."""
    if ours.size == 0:
        return 0.0
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
