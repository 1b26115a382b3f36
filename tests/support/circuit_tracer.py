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
from pellucid.graphs.prune import surviving
from pellucid.graphs.scores import influence, scores
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


def node_slots(graph: AttributionGraph) -> tuple[Int64[np.ndarray, " n"], int]:
    """Where every node stands in circuit-tracer's order (-1: a constant), and its node count."""
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
    return slot, logit_start + n_logits


def adjacency(graph: AttributionGraph) -> Float32[np.ndarray, "N N"]:
    """The graph's edges in circuit-tracer's layout; edges from constants are left out."""
    slot, size = node_slots(graph)
    kept = graph.nodes.kind[graph.edges.source] != BIAS
    matrix = np.zeros((size, size), dtype=np.float32)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementComparison:
    """How far scores and pruning of a graph are from circuit-tracer's, thresholds .8 and .98.

    Attributes:
        replacement, completeness: what ours are.
        score_difference: the larger of the two scores' differences.
        influence_difference: over all nodes, relative to the largest influence.
        pruned_nodes, pruned_edges: how many of each ours keeps.
        differing_nodes, differing_edges: nodes and edges that one keeps and the other does not.
    """

    replacement: float
    completeness: float
    score_difference: float
    influence_difference: float
    pruned_nodes: int
    pruned_edges: int
    differing_nodes: int
    differing_edges: int


def compare_judgement(
    graph: AttributionGraph, theirs: Mapping[str, np.ndarray], *, skip: bool = False
) -> JudgementComparison:
    """Compare scores, influence and pruned sets of two graphs of the same features.

    Args:
        graph: ours.
        theirs: what `circuit_tracer_trace.py --judge` writes.
        skip: the first token's effects are left out on both sides.
    """
    if skip:
        graph = _without_first_token(graph)
    slot, size = node_slots(graph)
    real = slot >= 0
    ours = np.zeros(size)
    ours[slot[real]] = influence(graph)[real]
    keep_nodes, keep_edges = surviving(graph, 0.8, 0.98)
    node_mask = np.zeros(size, dtype=bool)
    node_mask[slot[real]] = keep_nodes[real]
    edge_mask = np.zeros((size, size), dtype=bool)
    edges = graph.edges
    edge_mask[slot[edges.target[keep_edges]], slot[edges.source[keep_edges]]] = True
    own = scores(graph)
    return JudgementComparison(
        replacement=own.replacement,
        completeness=own.completeness,
        score_difference=float(np.abs(np.array(own) - theirs["scores"]).max()),
        influence_difference=_relative(ours, theirs["influence"]),
        pruned_nodes=int(node_mask.sum()),
        pruned_edges=int(edge_mask.sum()),
        differing_nodes=int((node_mask != theirs["node_mask"]).sum()),
        differing_edges=int((edge_mask != theirs["edge_mask"]).sum()),
    )


def _without_first_token(graph: AttributionGraph) -> AttributionGraph:
    nodes = graph.nodes
    first = nodes.is_kind(TOKEN) & (nodes.position == 0)
    kept = np.ones(len(nodes), dtype=bool)
    return graph.subgraph(kept, ~first[graph.edges.source])


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
