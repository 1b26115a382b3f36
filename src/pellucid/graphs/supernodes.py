"""Groups of nodes that act together: given by hand, or proposed from what they read and write.

Suffixes: N nodes, C candidates, G groups.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.scores import edge_influence, influence
from pellucid.graphs.tables import FEATURE

KEY = "supernodes"
APART = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supernode:
    """A named group of nodes.

    Its predicted joint effect on a node T, which a causal check compares with an intervention, is
    `flow_from_to(graph, supernode.nodes, T, by="effect").total`.
    """

    label: str
    nodes: tuple[int, ...]


def supernodes_by_hand(
    graph: AttributionGraph, groups: Mapping[str, Iterable[int | str]]
) -> list[Supernode]:
    """Groups from labels and their members, given as node numbers or as names (`node_names`).

    Raises:
        GraphError: a member that is not there, in two groups or twice in one; an empty group.
    """
    number = {name: row for row, name in enumerate(node_names(graph))}
    result, owner = [], dict[int, str]()
    for label, members in groups.items():
        nodes = []
        for member in members:
            node = number.get(member, -1) if isinstance(member, str) else int(member)
            if not 0 <= node < len(graph.nodes):
                raise GraphError(
                    f"supernode {label!r} names node {member!r}, which this graph does not have"
                )
            if node in owner:
                raise GraphError(
                    f"supernodes {owner[node]!r} and {label!r} both hold node {member!r}; a node "
                    "belongs to one"
                )
            owner[node] = label
            nodes.append(node)
        if not nodes:
            raise GraphError(f"supernode {label!r} is empty; give it nodes or leave it out")
        result.append(Supernode(label=str(label), nodes=tuple(nodes)))
    return result


def with_supernodes(graph: AttributionGraph, supernodes: Sequence[Supernode]) -> AttributionGraph:
    """The graph with its supernodes recorded, under names that pruning does not change.

    Raises:
        GraphError: a node that is not there or in two groups, an empty group, a label twice.
    """
    labels = [group.label for group in supernodes]
    if len(set(labels)) < len(labels):
        raise GraphError(f"two supernodes share a label; labels are {labels}")
    supernodes_by_hand(graph, {group.label: group.nodes for group in supernodes})
    names = node_names(graph)
    record = [[group.label, *(names[node] for node in group.nodes)] for group in supernodes]
    return replace(graph, metadata=graph.metadata | {KEY: record})


def supernodes_of(graph: AttributionGraph) -> list[Supernode]:
    """The supernodes recorded in a graph, without members (and groups) that pruning dropped.

    Raises:
        GraphError: the record is not a list of `[label, name, ...]`.
    """
    record = graph.metadata.get(KEY, [])
    if not isinstance(record, list) or not all(
        isinstance(entry, list) and entry and all(isinstance(text, str) for text in entry)
        for entry in record
    ):
        raise GraphError("the graph's supernodes are not a list of [label, node name, ...]")
    number = {name: row for row, name in enumerate(node_names(graph))}
    groups = [
        Supernode(label=entry[0], nodes=tuple(number[n] for n in entry[1:] if n in number))
        for entry in record
    ]
    return [group for group in groups if group.nodes]


def propose(
    graph: AttributionGraph,
    *,
    similarity: float = 0.5,
    band: int = 2,
    same_position: bool = True,
    max_features: int = 1000,
) -> list[Supernode]:
    """Propose groups of features that read the same nodes and write to the same nodes.

    After ADAG (arXiv 2604.07615). A feature's input profile is its row of signed edge weights, its
    output profile its column of signed shares of the targets' rows. Two features are as similar as
    the mean of the cosines of both, over nodes before the earlier and after the later one.
    Complete linkage joins groups while every pair in them is at least `similarity` alike. This is
    a proposal: keep it only when changing the group does what its parts predict.

    Args:
        graph: the graph, best pruned; profiles are taken within it.
        similarity: the least similarity of two members, above 0 and up to 1.
        band: members lie within this many successive layers.
        same_position: members share a position.
        max_features: consider this many features of largest influence.

    Returns:
        Groups of at least two features, most influential first.

    Raises:
        GraphError: a setting out of range.
    """
    if not 0 < similarity <= 1:
        raise GraphError(f"similarity is {similarity}; give a number above 0 and up to 1")
    if band < 1 or max_features < 2:
        raise GraphError(
            f"band is {band} and max_features {max_features}; give at least 1 layer and 2 features"
        )
    nodes, reached = graph.nodes, influence(graph)
    ranked = np.flatnonzero(nodes.kind == FEATURE)
    ranked = np.sort(ranked[np.argsort(-reached[ranked], kind="stable")[:max_features]])
    if len(ranked) < 2:
        return []
    alike = profile_similarity(graph, ranked)
    layer, position = nodes.layer[ranked], nodes.position[ranked]
    blocked = np.abs(layer[:, None] - layer) >= band
    if same_position:
        blocked |= position[:, None] != position
    distance = np.where(blocked, APART, 1 - alike)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance.clip(0), checks=False), method="complete")
    cluster = fcluster(tree, 1 - similarity + 1e-9, criterion="distance")
    groups = [ranked[cluster == number] for number in np.unique(cluster)]
    groups = sorted((g for g in groups if len(g) > 1), key=lambda g: -reached[g].sum())
    return [
        Supernode(label=_label(graph, group, number), nodes=tuple(group.tolist()))
        for number, group in enumerate(groups, start=1)
    ]


def _label(graph: AttributionGraph, group: np.ndarray, number: int) -> str:
    layers, positions = graph.nodes.layer[group], np.unique(graph.nodes.position[group])
    span = f"{layers.min()}" if layers.min() == layers.max() else f"{layers.min()}-{layers.max()}"
    place = f' at "{graph.tokens[positions[0]].strip()}"' if len(positions) == 1 else ""
    return f"group {number}: layer {span}{place}"


def profile_similarity(
    graph: AttributionGraph, candidates: Int64[np.ndarray, " C"]
) -> Float64[np.ndarray, "C C"]:
    """Mean cosine of input and of output profiles of every two candidates; see `propose`.

    A cosine is 0 where either profile is empty.
    """
    edges, size = graph.edges, len(graph.nodes)
    weight = edges.weight.astype(np.float64)
    row_sum = np.bincount(edges.target, np.abs(weight), minlength=size)
    share = weight / np.where(row_sum > 0, row_sum, 1)[edges.target]
    rank = graph.nodes.rank() + 2  # from 0: a bias before the first layer has rank -2
    shape = (size, size)
    inputs = csr_array((weight, (edges.target, edges.source)), shape=shape)[candidates]
    outputs = csr_array((share, (edges.source, edges.target)), shape=shape)[candidates]
    own = rank[candidates]
    earlier, later = np.minimum(own[:, None], own), np.maximum(own[:, None], own)
    read = _cosines(inputs, rank, limit=earlier - 1)
    # Counted from the end, what comes after the later one is what comes before it.
    write = _cosines(outputs, rank.max() - rank, limit=rank.max() - later - 1)
    return (read + write) / 2


def _cosines(profiles: Any, rank: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Cosines of profiles (C rows over N nodes), each pair over nodes of rank up to `limit`.

    The products need no limit: a profile is zero where its own node cannot reach.
    """
    squares = np.zeros((profiles.shape[0], int(rank.max()) + 2))
    coo = profiles.tocoo()
    np.add.at(squares, (coo.row, rank[coo.col] + 1), coo.data**2)
    length = np.sqrt(np.cumsum(squares, axis=1))  # [:, r + 1]: over ranks up to r
    first = np.take_along_axis(length, limit + 1, axis=1)
    norm = first * np.take_along_axis(length, limit.T + 1, axis=1).T
    product = (profiles @ profiles.T).toarray()
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedGraph:
    """A graph seen in groups: G of them, and the sums of the edges between them.

    Groups may feed each other both ways, so this need not be a DAG. Weights of edges into
    different features have different units; `flow` is what can be compared.

    Attributes:
        label: each group's name; a node of no supernode is a group under its own name.
        members: each group's nodes.
        is_supernode: which groups are supernodes.
        influence: the sum of the members' influence on the logits.
        target: each edge's target group.
        source: each edge's source group.
        weight: the sum of the weights between them.
        flow: the sum of the influence through the edges between them (`edge_influence`).
    """

    label: list[str]
    members: list[tuple[int, ...]]
    is_supernode: Bool[np.ndarray, " G"]
    influence: Float64[np.ndarray, " G"]
    target: Int64[np.ndarray, " e"]
    source: Int64[np.ndarray, " e"]
    weight: Float64[np.ndarray, " e"]
    flow: Float64[np.ndarray, " e"]


def grouped(
    graph: AttributionGraph, supernodes: Sequence[Supernode] | None = None, *, rest: bool = True
) -> GroupedGraph:
    """Collapse supernodes to one node each; edges inside a group disappear.

    Args:
        graph: the graph, best pruned.
        supernodes: the groups; by default those recorded in the graph.
        rest: keep the other nodes, each as its own group; else leave them out.

    Raises:
        GraphError: a node that is not there or in two groups, an empty group.
    """
    groups = supernodes_of(graph) if supernodes is None else list(supernodes)
    supernodes_by_hand(graph, {f"{n}: {g.label}": g.nodes for n, g in enumerate(groups)})
    names = node_names(graph)
    owner = np.full(len(graph.nodes), -1)
    for number, group in enumerate(groups):
        owner[list(group.nodes)] = number
    alone = np.flatnonzero(owner < 0) if rest else np.empty(0, dtype=np.int64)
    owner[alone] = len(groups) + np.arange(len(alone))
    size = len(groups) + len(alone)
    edges = graph.edges
    target, source = owner[edges.target], owner[edges.source]
    between = (target != source) & (target >= 0) & (source >= 0)
    code, place = np.unique(target[between] * size + source[between], return_inverse=True)
    place = place.reshape(-1)
    kept = owner >= 0
    return GroupedGraph(
        label=[group.label for group in groups] + [names[node] for node in alone],
        members=[group.nodes for group in groups] + [(node,) for node in alone.tolist()],
        is_supernode=np.arange(size) < len(groups),
        influence=np.bincount(owner[kept], influence(graph)[kept], minlength=size),
        target=code // size if size else code,
        source=code % size if size else code,
        weight=np.bincount(place, edges.weight[between], minlength=len(code)),
        flow=np.bincount(place, edge_influence(graph)[between], minlength=len(code)),
    )
