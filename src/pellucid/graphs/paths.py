"""Questions about the paths of one graph: which nodes, which paths, what carries what.

Two measures of an edge. Its share: absolute weight over its target's row (`edge_shares`), so that
a path's share is the product of its edges' shares. Its signed effect: the weight divided by the
target's activation, so that a path's effect is what its first node adds, along this path alone,
to the value of its last node, with everything nonlinear frozen. Suffixes: N nodes, E edges.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import edge_shares, influence, logit_weights
from pellucid.graphs.tables import BIAS, FEATURE, NODE_KINDS

Measure = Literal["share", "effect"]
Nodes = int | Iterable[int]


def find_nodes(
    graph: AttributionGraph,
    *,
    kind: str | None = None,
    layer: int | None = None,
    position: int | None = None,
    index: int | None = None,
    label: str | None = None,
) -> Int64[np.ndarray, " n"]:
    """Numbers of the nodes that fit all that is given, in table order; empty where none does.

    Args:
        graph: the graph.
        kind: "feature", "error", "token", "bias" or "logit".
        layer: as in `NodeTable`: -1 for tokens, `n_layers` for logits.
        position: token position; negative ones count from the end of the prompt.
        index: feature number, or vocabulary id of a token or logit.
        label: text that the node's label contains, in any case.

    Raises:
        GraphError: an unknown kind, or a position that the prompt does not have.
    """
    nodes = graph.nodes
    fits = np.ones(len(nodes), dtype=bool)
    if kind is not None:
        if kind not in NODE_KINDS:
            raise GraphError(f"node kind is {kind!r}; give one of {', '.join(NODE_KINDS)}")
        fits &= nodes.kind == NODE_KINDS.index(kind)
    if position is not None:
        length = len(graph.tokens)
        if not -length <= position < length:
            raise GraphError(f"position is {position}; the prompt has {length} tokens")
        fits &= nodes.position == position % length
    if layer is not None:
        fits &= nodes.layer == layer
    if index is not None:
        fits &= nodes.index == index
    if label is not None:
        fits &= np.array([label.casefold() in text.casefold() for text in nodes.label], dtype=bool)
    return np.flatnonzero(fits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A path through a graph.

    Attributes:
        nodes: node numbers from the source to the target.
        edges: edge numbers, one fewer.
        value: the product of the edges' shares, or the signed effect of the source through this
            path in units of the target's value.
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    value: float


def strongest_paths(
    graph: AttributionGraph,
    sources: Nodes,
    targets: Nodes,
    *,
    count: int = 10,
    by: Measure = "share",
    include_bias: bool = False,
) -> list[Path]:
    """The `count` paths of largest absolute value from any source to any target, largest first.

    Exact: every node keeps the `count` best paths that lead to it from the sources, built from
    those of its inputs. A path has at least one edge, and may pass through a source or a target.

    Args:
        graph: the graph.
        sources: one node or several.
        targets: one node or several.
        count: how many paths; fewer come back where there are fewer.
        by: "share" or "effect", see above.
        include_bias: let edges from bias nodes take part.

    Raises:
        GraphError: a node that is not there, a count below 1, or effects asked of a graph whose
            features have no activations.
    """
    if count < 1:
        raise GraphError(f"count is {count}; ask for at least one path")
    begin, end = _members(graph, sources, "sources"), _members(graph, targets, "targets")
    factor, start = _factors(graph, by, include_bias=include_bias)
    size, edges = len(graph.nodes), graph.edges
    # best[n, k]: value of the k-th best path from a source to n; via[n, k]: its last edge (-1
    # where it starts here); after[n, k]: which of the edge's source's paths it continues.
    best = np.zeros((size, count + 1))
    via = np.full((size, count + 1), -1, dtype=np.int64)
    after = np.zeros((size, count + 1), dtype=np.int64)
    first_edge = np.searchsorted(edges.target, np.arange(size + 1))
    found: list[tuple[float, int, int]] = []
    for node in np.argsort(graph.nodes.rank(), kind="stable").tolist():
        own = np.arange(first_edge[node], first_edge[node + 1])
        values = best[edges.source[own]] * factor[own, None]
        order = np.argsort(-np.abs(values), axis=None, kind="stable")[:count]
        row, column = np.unravel_index(order, values.shape) if len(own) else (order, order)
        top = values.reshape(-1)[order]
        keep = top != 0
        row, column, top = row[keep], column[keep], top[keep]
        if end[node]:
            last = top * start[node]
            found += [
                (value, int(edge), int(place))
                for value, edge, place in zip(last.tolist(), own[row], column, strict=True)
            ]
        if begin[node]:  # the path of no edges, as one that others continue
            best[node, count] = 1
        best[node, : len(top)], via[node, : len(top)] = top, own[row]
        after[node, : len(top)] = column
    found.sort(key=lambda path: -abs(path[0]))
    return [_walk(graph, value, edge, place, via, after) for value, edge, place in found[:count]]


def _walk(
    graph: AttributionGraph, value: float, edge: int, place: int, via: np.ndarray, after: np.ndarray
) -> Path:
    nodes, taken = [int(graph.edges.target[edge])], []
    while edge >= 0:
        taken.append(edge)
        node = int(graph.edges.source[edge])
        nodes.append(node)
        edge, place = int(via[node, place]), int(after[node, place])
    return Path(nodes=tuple(nodes[::-1]), edges=tuple(taken[::-1]), value=value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """What goes from some nodes to others, over all paths.

    Attributes:
        total: by share, the part of the targets' inputs that goes back to the sources, 0..1; by
            effect, what the sources add to the targets' values.
        through: for every node, the part of `total` whose paths pass it (1 over all sources; with
            effects of both signs it may lie outside 0..1); 0 throughout where `total` is 0.
    """

    total: float
    through: Float64[np.ndarray, " N"]


def flow_from_to(
    graph: AttributionGraph,
    sources: Nodes,
    targets: Nodes,
    *,
    by: Measure = "share",
    include_bias: bool = False,
) -> Flow:
    """What carries influence from `sources` to `targets`, and how much of it there is.

    Traced back from the targets, a path ends at the first source that it meets, so nothing is
    counted twice when one source feeds another: by effect, `total` is what the frozen model's
    targets lose when all sources are set to zero together.

    Args:
        graph: the graph.
        sources: one node or several.
        targets: one node or several, none of them a source. By share they are averaged, each
            weighing as much as it influences the logits (equally where none does); by effect
            they are added.
        by: "share" or "effect", see above.
        include_bias: let edges from bias nodes take part.

    Raises:
        GraphError: a node that is not there or is both source and target, or effects asked of a
            graph whose features have no activations.
    """
    begin, end = _members(graph, sources, "sources"), _members(graph, targets, "targets")
    if (begin & end).any():
        both = int(np.argmax(begin & end))
        raise GraphError(f"node {both} is a source and a target; leave it out of one of them")
    factor, start = _factors(graph, by, include_bias=include_bias)
    arriving = np.where(end, start, 0)
    if by == "share":
        weight = influence(graph, include_bias=include_bias) + logit_weights(graph)
        arriving = np.where(end, weight if weight[end].any() else 1, 0)
        arriving = arriving / arriving.sum()
    steps = _edges_by_rank(graph)
    met = begin.astype(np.float64)  # how much of a node goes back to the sources
    for edge in steps:
        target = graph.edges.target[edge]
        flow = factor[edge] * met[graph.edges.source[edge]]
        met += np.where(begin, 0, np.bincount(target, flow, minlength=len(met)))
    for edge in reversed(steps):
        target = graph.edges.target[edge]
        flow = factor[edge] * np.where(begin[target], 0, arriving[target])
        arriving += np.bincount(graph.edges.source[edge], flow, minlength=len(met))
    through = arriving * met
    total = float(through[begin].sum())
    return Flow(total=total, through=through / total if total else np.zeros(len(met)))


def _edges_by_rank(graph: AttributionGraph) -> list[Int64[np.ndarray, " e"]]:
    """Edge numbers grouped by their target's rank, lowest first."""
    rank = graph.nodes.rank()[graph.edges.target]
    order = np.argsort(rank, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rank[order])) + 1)


def _factors(
    graph: AttributionGraph, by: Measure, *, include_bias: bool
) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, " N"]]:
    """What each edge multiplies a path by, and what each node multiplies a path that ends in it."""
    nodes, edges = graph.nodes, graph.edges
    if by == "share":
        return edge_shares(graph, include_bias=include_bias), np.ones(len(nodes))
    if by != "effect":
        raise GraphError(f"paths are measured by {by!r}; give 'share' or 'effect'")
    start = np.where(nodes.kind == FEATURE, nodes.activation, 1).astype(np.float64)
    weight = edges.weight.astype(np.float64)
    if not include_bias:
        weight[nodes.kind[edges.source] == BIAS] = 0
    silent = start[edges.target] == 0
    if silent.any():
        raise GraphError(
            f"feature node {edges.target[np.argmax(silent)]} has activation 0, so effects through "
            "it are unknown; ask by='share', or read a graph file that holds activations"
        )
    return weight / start[edges.target], start


def _members(graph: AttributionGraph, nodes: Nodes, name: str) -> Bool[np.ndarray, " N"]:
    numbers = [nodes] if isinstance(nodes, int | np.integer) else [int(node) for node in nodes]
    size = len(graph.nodes)
    if not numbers:
        raise GraphError(f"there are no {name}; give at least one node (see find_nodes)")
    for number in numbers:
        if not 0 <= number < size:
            raise GraphError(f"{name} name node {number}, of {size} nodes")
    members = np.zeros(size, dtype=bool)
    members[numbers] = True
    return members
