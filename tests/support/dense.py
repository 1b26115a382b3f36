"""Influence, scores and pruning by dense matrices: an independent, literal reading of the facts.

Nothing here uses the package's own scores: powers of the matrix instead of a sweep, NumPy masks
over all node pairs instead of edge lists.
"""

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN


def dense_matrix(graph: AttributionGraph, *, include_bias: bool) -> np.ndarray:
    """Absolute weights, [target, source], float64."""
    matrix = np.zeros((len(graph.nodes),) * 2)
    matrix[graph.edges.target, graph.edges.source] = np.abs(graph.edges.weight)
    if not include_bias:
        matrix[:, graph.nodes.kind == BIAS] = 0
    return matrix


def normalised(matrix: np.ndarray) -> np.ndarray:
    return matrix / matrix.sum(axis=1, keepdims=True).clip(1e-10)


def weights(graph: AttributionGraph) -> np.ndarray:
    return np.where(graph.nodes.kind == LOGIT, graph.nodes.probability.astype(np.float64), 0)


def series(matrix: np.ndarray, start: np.ndarray) -> np.ndarray:
    """start A + start A^2 + ... until a term is zero."""
    total, term = np.zeros_like(start), start @ matrix
    while term.any():
        total, term = total + term, term @ matrix
    return total


def dense_scores(graph: AttributionGraph, *, include_bias: bool) -> tuple[float, float]:
    matrix, start = normalised(dense_matrix(graph, include_bias=include_bias)), weights(graph)
    reached = series(matrix, start)
    kind = graph.nodes.kind
    tokens, errors = reached[kind == TOKEN].sum(), reached[kind == ERROR].sum()
    good = 1 - matrix[:, kind == ERROR].sum(axis=1)
    output = reached + start
    return tokens / (tokens + errors), (good * output).sum() / output.sum()


def keep_mass(values: np.ndarray, threshold: float) -> np.ndarray:
    flat = np.sort(values.ravel())[::-1]
    reached = np.flatnonzero(np.cumsum(flat) / flat.sum() >= threshold)
    first = reached[0] if len(reached) else len(flat) - 1
    return values >= flat[first]


def dense_prune(
    graph: AttributionGraph, node_threshold: float, edge_threshold: float, *, include_bias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Kept nodes [N] and kept pairs [N, N]."""
    kind, start = graph.nodes.kind, weights(graph)
    matrix = dense_matrix(graph, include_bias=include_bias)
    nodes = keep_mass(series(normalised(matrix), start), node_threshold)
    if not include_bias:
        nodes[kind == BIAS] = False
    nodes[(kind == TOKEN) | (kind == LOGIT)] = True
    left = normalised(np.where(nodes[:, None] & nodes[None, :], matrix, 0))
    pairs = keep_mass(left * (series(left, start) + start)[:, None], edge_threshold)
    pairs &= left > 0
    while True:
        before = nodes.copy()
        needs_output = np.isin(kind, (FEATURE, ERROR, BIAS))
        nodes &= ~needs_output | pairs.any(axis=0)
        nodes &= (kind != FEATURE) | pairs.any(axis=1)
        pairs &= nodes[:, None] & nodes[None, :]
        if (nodes == before).all():
            return nodes, pairs
