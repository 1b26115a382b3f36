"""Graphs changed in known ways, for tests of comparisons."""

from dataclasses import replace

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, NODE_COLUMNS, Edges, NodeTable


def with_word_inserted(
    graph: AttributionGraph, at: int, word: str = "INSERTED"
) -> AttributionGraph:
    """The same graph of a prompt with one more word, which nothing reads."""
    nodes = graph.nodes
    columns = {name: getattr(nodes, name) for name in NODE_COLUMNS}
    columns["position"] = nodes.position + (nodes.position >= at)
    return replace(
        graph,
        nodes=NodeTable(label=nodes.label, **columns),
        tokens=[*graph.tokens[:at], word, *graph.tokens[at:]],
    )


def renumbered(
    graph: AttributionGraph, seed: int
) -> tuple[AttributionGraph, dict[tuple[int, int], tuple[int, int]]]:
    """The same graph of a dictionary with other feature numbers, and the map back to the old."""
    rng = np.random.default_rng(seed)
    nodes = graph.nodes
    rows = np.flatnonzero(nodes.kind == FEATURE)
    old = sorted({(int(nodes.layer[row]), int(nodes.index[row])) for row in rows})
    numbers = rng.permutation(5000)[: len(old)]
    new = {pair: (pair[0], int(number)) for pair, number in zip(old, numbers, strict=True)}
    index = nodes.index.copy()
    for row in rows:
        index[row] = new[int(nodes.layer[row]), int(nodes.index[row])][1]
    return reordered(graph, index), {after: before for before, after in new.items()}


def reordered(graph: AttributionGraph, index: np.ndarray) -> AttributionGraph:
    """The same graph with other node indices, its tables put in order again."""
    nodes = graph.nodes
    keep_order = np.where(nodes.kind == FEATURE, index, np.arange(len(nodes)))
    layer_position = np.where(nodes.kind == FEATURE, [nodes.layer, nodes.position], 0)
    order = np.lexsort((keep_order, layer_position[1], layer_position[0], nodes.kind))
    columns = {name: getattr(nodes, name)[order] for name in NODE_COLUMNS}
    columns["index"] = index[order]
    new_of_old = np.argsort(order)
    return replace(
        graph,
        nodes=NodeTable(label=[nodes.label[row] for row in order], **columns),
        edges=Edges.from_unsorted(
            target=new_of_old[graph.edges.target],
            source=new_of_old[graph.edges.source],
            weight=graph.edges.weight,
        ),
        target_values=graph.target_values[order],
    )


def with_noise(graph: AttributionGraph, seed: int, size: float) -> AttributionGraph:
    """The same nodes and edges with noise added to the weights."""
    noise = np.random.default_rng(seed).normal(scale=size, size=len(graph.edges))
    weight = (graph.edges.weight + noise).astype(np.float32)
    edges = graph.edges
    return replace(graph, edges=Edges(target=edges.target, source=edges.source, weight=weight))
