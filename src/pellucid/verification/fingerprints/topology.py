"""Family `topological`: the shape of the pruned graph (Zhao et al. 2025).

Of the pruned graph only nodes that still have an edge count: pruning keeps every token, and those
without an edge would only say how long the prompt is. Edges lead from sources to targets. All
measures are exact and over all nodes; betweenness is that of networkx (directed, normalised), by
matrix products over the few levels that a graph of layers has.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from pellucid.graphs.tables import FEATURE, LOGIT, TOKEN
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, ratio, summary

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DEFINITIONS = (
    Definition("topological.nodes", "nodes with an edge after pruning", "0..", "length"),
    Definition("topological.density", "edges by possible ordered pairs of nodes", stands="length"),
    Definition(
        "topological.degree_{statistic}", "edges of a node by the number of the others", "0..2"
    ),
    Definition("topological.in_degree_max", "most edges into a node, by the number of the others"),
    Definition("topological.out_degree_max", "most edges out of a node, by that of the others"),
    Definition(
        "topological.in_degree_std", "spread of edges into a node, by the number of the others"
    ),
    Definition(
        "topological.out_degree_std", "spread of edges out of a node, by that of the others"
    ),
    Definition("topological.betweenness_{statistic}", "share of shortest paths through a node"),
    Definition("topological.components", "weakly connected parts", "0..", "length"),
    Definition("topological.largest_component", "share of the nodes that lie in the largest part"),
    Definition(
        "topological.path_mean",
        "edges of the shortest path to a logit, mean over tokens with one; 0 without any",
        "0..",
    ),
    Definition("topological.path_max", "the longest of these shortest paths", "0.."),
    Definition(
        "topological.reached_tokens", "share of the prompt's tokens that have a path to a logit"
    ),
    Definition("topological.direct_tokens", "share of those whose shortest path is one edge"),
    Definition(
        "topological.weight_mean", "mean absolute edge weight, in units of its target", "0.."
    ),
    Definition("topological.weight_std", "spread of absolute edge weights", "0.."),
    Definition("topological.share_mean", "mean share of an edge in its target's row"),
    Definition("topological.share_max", "largest share of an edge in its target's row"),
    Definition("topological.feature_edges", "share of edges that join two features"),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    edges, kept = measured.edges, np.flatnonzero(measured.pruned[1])
    source, target = edges.source[kept], edges.target[kept]
    used = np.zeros(len(measured.nodes), dtype=bool)
    used[source] = used[target] = True
    number, size = np.cumsum(used) - 1, int(used.sum())
    if not size:
        return dict.fromkeys(_NAMES, 0.0)
    ends = csr_matrix(
        (np.ones(len(kept)), (number[source], number[target])), shape=(size, size)
    )  # [from, to]
    parts, part = connected_components(ends, directed=True, connection="weak")
    kind = measured.kind[used]
    weight = np.abs(edges.weight[kept], dtype=np.float64)
    shares = measured.shares[kept]
    return {
        "topological.nodes": float(size),
        "topological.density": ratio(len(kept), size * (size - 1)),
        **_degrees(ends),
        **_named("betweenness", betweenness(ends)),
        "topological.components": float(parts),
        "topological.largest_component": float(np.bincount(part).max()) / size,
        **_paths(ends, kind, measured.n_tokens),
        "topological.weight_mean": float(weight.mean()),
        "topological.weight_std": float(weight.std()),
        "topological.share_mean": float(shares.mean()),
        "topological.share_max": float(shares.max()),
        "topological.feature_edges": float(
            ((measured.kind[source] == FEATURE) & (measured.kind[target] == FEATURE)).mean()
        ),
    }


def _named(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"topological.{name}_{of}": value for of, value in summary(values).items()}


def _degrees(ends: "csr_matrix") -> dict[str, float]:
    others = max(1, ends.shape[0] - 1)
    out = np.diff(ends.indptr) / others
    into = np.bincount(ends.indices, minlength=ends.shape[0]) / others
    return {
        **_named("degree", out + into),
        "topological.in_degree_max": float(into.max()),
        "topological.out_degree_max": float(out.max()),
        "topological.in_degree_std": float(into.std()),
        "topological.out_degree_std": float(out.std()),
    }


def betweenness(ends: "csr_matrix") -> Float64[np.ndarray, " N"]:
    """Betweenness of every node of a directed graph (Brandes 2001), all sources at once.

    Args:
        ends: [N, N], 1 where an edge leads from the row's node to the column's.
    """
    size = ends.shape[0]
    back = ends.T.tocsr()
    reached = np.eye(size, dtype=bool)  # [node, source]
    counts = np.eye(size)
    levels = [counts]
    while True:
        arriving = back @ levels[-1]
        arriving[reached] = 0
        if not arriving.any():
            break
        reached |= arriving > 0
        counts = counts + arriving
        levels.append(arriving)
    depends = np.zeros((size, size))
    for nearer, farther in zip(levels[-2::-1], levels[:0:-1], strict=True):
        share = np.zeros_like(farther)
        np.divide(1 + depends, counts, out=share, where=farther > 0)
        depends += nearer * (ends @ share)
    np.fill_diagonal(depends, 0)
    return depends.sum(axis=1) / max(1, (size - 1) * (size - 2))


def _paths(ends: "csr_matrix", kind: np.ndarray, n_tokens: int) -> dict[str, float]:
    """Shortest paths of tokens to a logit, level by level from the logits back."""
    length = np.where(kind == LOGIT, 0, -1)
    at, edges = kind == LOGIT, 0
    while at.any():
        edges += 1
        at = (ends @ at.astype(np.float64) > 0) & (length < 0)
        length[at] = edges
    found = length[(kind == TOKEN) & (length > 0)]
    return {
        "topological.path_mean": float(found.mean()) if len(found) else 0.0,
        "topological.path_max": float(found.max(initial=0)),
        "topological.reached_tokens": len(found) / n_tokens,
        "topological.direct_tokens": ratio((found == 1).sum(), len(found)),
    }


_NAMES = [name for definition in DEFINITIONS for name in definition.columns(0)]
TOPOLOGICAL = Family(about="shape of the pruned graph", definitions=DEFINITIONS, measure=_measure)
