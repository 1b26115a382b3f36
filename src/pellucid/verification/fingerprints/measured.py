"""A step's graph with what all families need of it, computed once.

Suffixes: N nodes, E edges, P token positions of the graph.

Influence is `graphs.scores.influence` divided by the logits' probability, so that it is 1 at the
inputs (tokens and errors) of a graph in which everything can be followed back; biases are left out.
Effects are signed: an edge's weight by its target's activation, multiplied along a path and summed
over paths, with everything nonlinear frozen, so that the inputs' effects (biases among them) sum to
the explained logits, weighted by their probabilities.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import (
    EDGE_THRESHOLD,
    NODE_THRESHOLD,
    cumulative_influence,
    surviving,
)
from pellucid.graphs.scores import edge_shares, logit_weights, sweep
from pellucid.graphs.tables import BIAS, FEATURE, LOGIT
from pellucid.verification.steps.place import ROLES, StepPlace

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class MeasuredGraph:
    """A graph seen from one step; everything is computed when first asked for, and kept.

    Args:
        graph: unpruned, of a prefix of the chain.
        place: of the step; it must reach at least as far as the graph.

    Raises:
        GraphError: the graph has more tokens than the place has roles.
    """

    def __init__(self, graph: AttributionGraph, place: StepPlace) -> None:
        if len(graph.tokens) > len(place.roles):
            raise GraphError(
                f"the graph has {len(graph.tokens)} tokens, but the step's place ends at "
                f"{len(place.roles)}; give the place of the step that was traced"
            )
        self.graph, self.place = graph, place
        self.nodes, self.edges = graph.nodes, graph.edges
        self.n_layers, self.n_tokens = graph.n_layers, len(graph.tokens)
        self.kind = graph.nodes.kind

    @cached_property
    def role(self) -> Int64[np.ndarray, " N"]:
        """The index in `ROLES` of every node's position, -1 for a node that has none."""
        codes = np.array([ROLES.index(role) for role in self.place.roles[: self.n_tokens]])
        position = self.nodes.position
        return np.where(position < 0, -1, codes[position])

    @cached_property
    def probability(self) -> Float64[np.ndarray, " N"]:
        """Of every logit as a share of all explained logits, 0 for other nodes."""
        weight = logit_weights(self.graph)
        total = weight.sum()
        return weight / total if total > 0 else weight

    @cached_property
    def shares(self) -> Float64[np.ndarray, " E"]:
        """Every edge's absolute weight as a share of its target's row, biases left out."""
        return edge_shares(self.graph)

    @cached_property
    def matrix(self) -> "csr_matrix":
        """`shares` as a sparse [N, N] matrix of targets by sources."""
        return self._sparse(self.shares)

    @cached_property
    def influence(self) -> Float64[np.ndarray, " N"]:
        """Every node's influence on the logits over all paths, as said above."""
        total = logit_weights(self.graph).sum()
        reached = sweep(self.graph, self.shares)
        return reached / total if total > 0 else reached

    @cached_property
    def cumulative(self) -> Float64[np.ndarray, " N"]:
        """The share of all influence held by a node and those above it (circuit-tracer's file)."""
        return cumulative_influence(self.influence)

    @cached_property
    def held(self) -> Float64[np.ndarray, " N"]:
        """Influence as a share of that of all nodes; sums to 1, or to 0 without any."""
        total = self.influence.sum()
        return self.influence / total if total > 0 else self.influence

    @cached_property
    def inputs(self) -> Float64[np.ndarray, " N"]:
        """Influence of nodes without inputs as a share of theirs; sums to 1, or to 0."""
        fed = np.bincount(self.edges.target, self.shares, minlength=len(self.nodes)) > 0
        ends = np.where(fed | (self.kind == LOGIT), 0, self.influence)
        total = ends.sum()
        return ends / total if total > 0 else ends

    @cached_property
    def through(self) -> Float64[np.ndarray, " E"]:
        """The influence that passes every edge."""
        return self.shares * (self.influence + self.probability)[self.edges.target]

    @cached_property
    def effects(self) -> Float64[np.ndarray, " N"]:
        """The signed effect of every node on the explained logits, over all paths."""
        return self.effects_on(self.probability)

    @cached_property
    def direct(self) -> Float64[np.ndarray, " N"]:
        """The signed effect of every node on the explained logits along its own edge alone."""
        flow = self.probability[self.edges.target] * self.edges.weight
        return np.bincount(self.edges.source, flow, minlength=len(self.nodes))

    def effects_on(self, start: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """The signed effect of every node on a weighted sum of logits.

        Args:
            start: the weight of every logit, 0 for other nodes.
        """
        transposed, total = self._gains.T, np.zeros(len(start))
        flow = start
        for _ in range(self.n_layers + 2):  # a path has at most so many edges
            flow = transposed @ flow
            total += flow
        return total

    @cached_property
    def _gains(self) -> "csr_matrix":
        """Weights by their targets' activations: [N, N] of targets by sources."""
        activation = np.where(self.kind == FEATURE, self.nodes.activation, 1).astype(np.float64)
        per_unit = np.divide(1.0, activation, out=np.zeros_like(activation), where=activation != 0)
        return self._sparse(self.edges.weight * per_unit[self.edges.target])

    def _sparse(self, values: Float64[np.ndarray, " E"]) -> "csr_matrix":
        from scipy.sparse import csr_matrix

        size = len(self.nodes)
        starts = self.edges.row_starts(size).astype(np.int32)
        return csr_matrix((values, self.edges.source, starts), shape=(size, size), copy=False)

    @cached_property
    def pruned(self) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " E"]]:
        """Which nodes and edges the usual pruning keeps (node .8, edge .98)."""
        return surviving(self.graph, NODE_THRESHOLD, EDGE_THRESHOLD)

    def is_kind(self, kind: int) -> Bool[np.ndarray, " N"]:
        """Which nodes are of a kind of `NODE_KINDS`."""
        return self.kind == kind

    @cached_property
    def counted(self) -> Bool[np.ndarray, " N"]:
        """Nodes that can hold influence: all but biases and logits."""
        return (self.kind != BIAS) & (self.kind != LOGIT)


def ratio(part: float, whole: float) -> float:
    """`part / whole`, 0 where the whole is nothing."""
    return float(part / whole) if abs(whole) > 1e-12 else 0.0


def entropy(shares: Float64[np.ndarray, " n"]) -> float:
    """Entropy of some shares as a part of the largest there can be, 0..1; 0 for fewer than two."""
    positive = shares[shares > 0]
    if len(shares) < 2 or not len(positive):
        return 0.0
    positive = positive / positive.sum()
    return float(max(0.0, -(positive * np.log(positive)).sum() / np.log(len(shares))))


def gini(values: Float64[np.ndarray, " n"]) -> float:
    """How unequal sizes are: 0 where all are alike, towards 1 where one has all; 0 for none."""
    sizes = np.sort(np.abs(values))
    total = sizes.sum()
    if total <= 0:
        return 0.0
    n = len(sizes)
    ranks = np.arange(1, n + 1)
    return float(max(0.0, (2 * ranks - n - 1) @ sizes / (n * total)))


def summary(values: Float64[np.ndarray, " n"]) -> dict[str, float]:
    """`mean`, `max` and `std` of some values; 0 where there are none."""
    if not len(values):
        return dict.fromkeys(("mean", "max", "std"), 0.0)
    wide = values.astype(np.float64)
    return {"mean": float(wide.mean()), "max": float(wide.max()), "std": float(wide.std())}
