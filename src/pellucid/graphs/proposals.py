"""Proposals of supernodes: features that read the same nodes and write to the same nodes.

Suffixes: N nodes, C candidates.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.supernodes import Supernode
from pellucid.graphs.tables import FEATURE

APART = 2.0
"""A distance at which nothing is joined."""


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
    rank = np.unique(graph.nodes.rank(), return_inverse=True)[1].reshape(-1)
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
