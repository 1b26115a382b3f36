"""Two pruned graphs laid over each other: their nodes and edges in one table, and figures of it.

Suffixes: N nodes, E edges of one graph; R rows of the joint table.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import surviving
from pellucid.graphs.resampling import (
    Figure,
    RankCorrelation,
    Statistic,
    defined,
    interval,
    jaccard,
    mean_defined,
    weighted_jaccard,
)
from pellucid.graphs.scores import edge_influence, influence, logit_weights
from pellucid.graphs.tables import FEATURE

FIGURES = (
    "node_jaccard",
    "edge_jaccard",
    "weighted_edge_jaccard",
    "influence_correlation",
    "edge_correlation",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """One graph as it is compared: measured as a whole, with what pruning keeps marked.

    Attributes:
        keys: the nodes' identities, from `node_keys`.
        influence: every node's influence on the logits in the whole graph, as a share of their
            probability.
        kept_nodes: the nodes that pruning keeps, biases left out.
        target: every edge's target node.
        source: every edge's source node.
        weight: every edge's weight.
        flow: the influence through every edge as a share of that through all edges.
        kept_edges: the edges that pruning keeps.
    """

    keys: Int64[np.ndarray, "N 4"]
    influence: Float64[np.ndarray, " N"]
    kept_nodes: Bool[np.ndarray, " N"]
    target: Int64[np.ndarray, " E"]
    source: Int64[np.ndarray, " E"]
    weight: Float64[np.ndarray, " E"]
    flow: Float64[np.ndarray, " E"]
    kept_edges: Bool[np.ndarray, " E"]

    def permuted(self, rng: np.random.Generator) -> "Layout":
        """The same graph with the keys of its features shuffled within each layer."""
        keys = self.keys.copy()
        is_feature = keys[:, 0] == FEATURE
        for layer in np.unique(keys[is_feature, 1]):
            rows = np.flatnonzero(is_feature & (keys[:, 1] == layer))
            keys[rows] = keys[rng.permutation(rows)]
        return replace(self, keys=keys)


def layout(
    graph: AttributionGraph,
    keys: Int64[np.ndarray, "N 4"],
    *,
    node_threshold: float,
    edge_threshold: float,
    anew: bool = False,
) -> Layout:
    """Measure a graph and mark what pruning keeps.

    Args:
        graph: the whole graph.
        keys: its nodes' identities.
        node_threshold: as in `prune`.
        edge_threshold: as in `prune`.
        anew: measure influence in the pruned graph instead, everything else counting 0.

    Raises:
        GraphError: a threshold outside 0..1.
    """
    edges = graph.edges
    kept_nodes, kept_edges = surviving(graph, node_threshold, edge_threshold)
    if anew:
        part = graph.subgraph(kept_nodes, kept_edges)
        reached, flow = np.zeros(len(keys)), np.zeros(len(edges))
        reached[kept_nodes], flow[kept_edges] = influence(part), edge_influence(part)
    else:
        reached, flow = influence(graph), edge_influence(graph)
    total, chance = flow.sum(), logit_weights(graph).sum()
    return Layout(
        keys=keys,
        influence=reached / chance if chance > 0 else reached,
        kept_nodes=kept_nodes,
        target=edges.target.astype(np.int64),
        source=edges.source.astype(np.int64),
        weight=edges.weight.astype(np.float64),
        flow=flow / total if total > 0 else flow,
        kept_edges=kept_edges,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joint:
    """Nodes, or edges, of either pruned graph; what a graph does not have counts 0 there.

    Attributes:
        key: rows of `Overlap.keys`: a node's (k = 1), or an edge's target's and source's (k = 2).
        kept: whether the first and the second graph keep it.
        value: a node's influence, an edge's weight, in the whole first and second graph.
        flow: an edge's share of influence in both (a node's influence again).
        unit: what is drawn in the bootstrap: a node itself; an edge's target, so that the edges
            of one target stay together.
    """

    key: Int64[np.ndarray, "R k"]
    kept: tuple[Bool[np.ndarray, " R"], Bool[np.ndarray, " R"]]
    value: tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]
    flow: tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]
    unit: Int64[np.ndarray, " R"]

    @property
    def kept_by_both(self) -> Bool[np.ndarray, " R"]:
        """Which rows both graphs keep."""
        return self.kept[0] & self.kept[1]

    def select(self, rows: Bool[np.ndarray, " R"] | Int64[np.ndarray, " r"]) -> "Joint":
        """Some of the rows, or the rows in another order; units are numbered anew."""

        def pair(columns: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            return columns[0][rows], columns[1][rows]

        return Joint(
            key=self.key[rows],
            kept=pair(self.kept),
            value=pair(self.value),
            flow=pair(self.flow),
            unit=np.unique(self.unit[rows], return_inverse=True)[1].reshape(-1),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Two graphs in one table.

    Attributes:
        keys: every node key of either graph, once.
        numbers: for every key the first and the second graph's node, the first if it has several,
            -1 if it has none.
        nodes: nodes that either pruned graph keeps.
        edges: edges that either pruned graph keeps.
    """

    keys: Int64[np.ndarray, "K 4"]
    numbers: tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]
    nodes: Joint
    edges: Joint


def overlap(first: Layout, second: Layout) -> Overlap:
    """Lay two graphs over each other; nodes with equal keys fall together, their values add up."""
    keys, inverse = np.unique(
        np.concatenate([first.keys, second.keys]), axis=0, return_inverse=True
    )
    inverse = inverse.reshape(-1)
    ids = inverse[: len(first.keys)], inverse[len(first.keys) :]
    graphs = (first, second)
    size = len(keys)
    wanted = np.zeros(size, dtype=bool)
    for own, graph in zip(ids, graphs, strict=True):
        wanted[own[graph.kept_nodes]] = True
    influences = [_total(own, g.influence, size) for own, g in zip(ids, graphs, strict=True)]
    nodes = Joint(
        key=np.arange(size)[:, None],
        kept=_pair(
            [_total(own, g.kept_nodes, size) > 0 for own, g in zip(ids, graphs, strict=True)]
        ),
        value=_pair(influences),
        flow=_pair(influences),
        unit=np.arange(size),
    )
    numbers = np.full((2, size), -1)
    for row, own in zip(numbers, ids, strict=True):
        row[own[::-1]] = np.arange(len(own))[::-1]
    return Overlap(
        keys=keys,
        numbers=(numbers[0], numbers[1]),
        nodes=nodes.select(wanted),
        edges=_edges(graphs, ids, wanted),
    )


def _edges(
    graphs: tuple[Layout, Layout], ids: tuple[np.ndarray, np.ndarray], wanted: np.ndarray
) -> Joint:
    """Edges between nodes that either graph keeps, of which either graph keeps the edge."""
    size = len(wanted)
    inside = [
        wanted[own[g.target]] & wanted[own[g.source]] for own, g in zip(ids, graphs, strict=True)
    ]
    codes = [
        own[g.target[rows]] * size + own[g.source[rows]]
        for own, g, rows in zip(ids, graphs, inside, strict=True)
    ]
    distinct, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    inverse = inverse.reshape(-1)
    places = inverse[: len(codes[0])], inverse[len(codes[0]) :]

    def totals(name: str) -> tuple[np.ndarray, np.ndarray]:
        return _pair(
            [
                _total(place, getattr(g, name)[rows], len(distinct))
                for place, g, rows in zip(places, graphs, inside, strict=True)
            ]
        )

    kept = totals("kept_edges")
    target, source = np.divmod(distinct, size)
    table = Joint(
        key=np.stack([target, source], axis=1),
        kept=(kept[0] > 0, kept[1] > 0),
        value=totals("weight"),
        flow=totals("flow"),
        unit=target,
    )
    return table.select(table.kept[0] | table.kept[1])


def _pair(columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return columns[0], columns[1]


def _total(place: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(place, values, minlength=size)


def statistics(both: Overlap) -> dict[str, tuple[Statistic, int]]:
    """Every figure of `FIGURES` as a statistic of how often each of its units was drawn.

    Figures of nodes are over features alone: tokens and logits are always kept. Correlations are
    over what both graphs keep (not what either keeps: being in one because it is missing in the
    other would make them negative by construction).
    """
    features = both.nodes.select(both.keys[both.nodes.key[:, 0], 0] == FEATURE)
    edges = both.edges
    node, edge = features.unit, edges.unit
    nodes_n, edges_n = (int(unit.max(initial=-1)) + 1 for unit in (node, edge))
    shared_node, shared_edge = node[features.kept_by_both], edge[edges.kept_by_both]
    ranks_of_nodes = RankCorrelation.of(*features.select(features.kept_by_both).value)
    ranks_of_edges = RankCorrelation.of(*edges.select(edges.kept_by_both).value)
    shown = tuple(
        np.where(kept, flow, 0) for kept, flow in zip(edges.kept, edges.flow, strict=True)
    )
    return {
        "node_jaccard": (lambda draws: jaccard(*features.kept, draws[node]), nodes_n),
        "edge_jaccard": (lambda draws: jaccard(*edges.kept, draws[edge]), edges_n),
        "weighted_edge_jaccard": (
            lambda draws: weighted_jaccard(shown[0], shown[1], draws[edge]),
            edges_n,
        ),
        "influence_correlation": (lambda draws: ranks_of_nodes(draws[shared_node]), nodes_n),
        "edge_correlation": (lambda draws: ranks_of_edges(draws[shared_edge]), edges_n),
    }


def plain_figures(both: Overlap) -> dict[str, float]:
    """Every figure of `FIGURES` without an interval; NaN where it is not defined."""
    return {name: of(np.ones(units)) for name, (of, units) in statistics(both).items()}


def null_figures(
    first: Layout, second: Layout, *, nulls: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """`plain_figures` for `nulls` permutations of the second graph's features within layers."""
    return [plain_figures(overlap(first, second.permuted(rng))) for _ in range(nulls)]


def resampled_figures(
    both: Overlap,
    null: Iterable[dict[str, float]],
    *,
    bootstraps: int,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Every figure of `FIGURES` with a bootstrap interval over nodes, or over edges' targets."""
    chance = list(null)
    figures = {}
    for name, (statistic, units) in statistics(both).items():
        low, high = interval(statistic, units, bootstraps=bootstraps, rng=rng)
        figures[name] = Figure(
            value=defined(statistic(np.ones(units))),
            low=low,
            high=high,
            null=mean_defined([figures_[name] for figures_ in chance]),
        )
    return figures
