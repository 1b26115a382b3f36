"""Groups of nodes that act together, kept with the graph, and the graph seen in such groups.

Suffix: G groups.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.scores import edge_influence, influence

KEY = "supernodes"


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
