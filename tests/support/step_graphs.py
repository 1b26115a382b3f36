"""Random graphs of steps, and what can be done to a graph that should change little of it."""

from dataclasses import replace

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, NODE_COLUMNS, Edges, NodeTable
from pellucid.verification.steps.place import ROLES, StepPlace
from support.graphs import random_graph

WORDS = ("7", "-12", "true", "(", "+", "and", "=")


def random_place(seed: int, n_tokens: int, beyond: int = 1) -> StepPlace:
    """A place that ends so many tokens after a graph of `n_tokens`."""
    rng = np.random.default_rng(seed)
    stop = n_tokens + beyond
    roles = tuple(ROLES[n] for n in rng.integers(0, len(ROLES), stop))
    return StepPlace(start=stop - 1, stop=stop, answer=(stop - 1, stop), roles=roles)


def random_step_graph(
    seed: int,
    *,
    n_layers: int = 3,
    n_tokens: int = 4,
    features_per_cell: int = 2,
    n_logits: int = 3,
    density: float = 0.6,
    n_biases: int = 2,
    consistent: bool = False,
) -> tuple[AttributionGraph, StepPlace]:
    """A random graph with words for tokens, and a random place for it.

    Args:
        consistent: make every feature's activation the sum of its row, where that is not 0.
    """
    graph = random_graph(
        seed,
        n_layers=n_layers,
        n_tokens=n_tokens,
        features_per_cell=features_per_cell,
        n_logits=n_logits,
        density=density,
        n_biases=n_biases,
    )
    rng = np.random.default_rng(seed)
    graph = replace(graph, tokens=[WORDS[n] for n in rng.integers(0, len(WORDS), n_tokens)])
    if consistent:
        sums = graph.row_sums()
        own = np.where((graph.nodes.kind == FEATURE) & (sums != 0), sums, graph.nodes.activation)
        graph = replace(graph, nodes=replace(graph.nodes, activation=own))
    return graph, random_place(seed, n_tokens)


def scaled(graph: AttributionGraph, weights: float, activations: float = 1) -> AttributionGraph:
    """All weights times one factor, all activations times another."""
    return replace(
        graph,
        nodes=replace(graph.nodes, activation=graph.nodes.activation * np.float32(activations)),
        edges=replace(graph.edges, weight=graph.edges.weight * np.float32(weights)),
    )


def split(graph: AttributionGraph, node: int) -> AttributionGraph:
    """One feature in two equal halves; its twin stands right behind it."""
    nodes, edges = graph.nodes, graph.edges
    assert nodes.kind[node] == FEATURE
    order = np.insert(np.arange(len(nodes)), node + 1, node)
    columns = {name: getattr(nodes, name)[order] for name in NODE_COLUMNS}
    columns["index"] = columns["index"] * (1 + (columns["kind"] == FEATURE))  # room for the twin
    columns["index"][node + 1] += 1
    columns["activation"][[node, node + 1]] /= 2
    moved = np.arange(len(nodes)) + (np.arange(len(nodes)) > node)
    target, source, weight = moved[edges.target], moved[edges.source], edges.weight.copy()
    mine = (target == node) | (source == node)
    weight[mine] /= 2
    return replace(
        graph,
        nodes=NodeTable(label=[nodes.label[n] for n in order], **columns),
        edges=Edges.from_unsorted(
            target=np.concatenate([target, np.where(target == node, node + 1, target)[mine]]),
            source=np.concatenate([source, np.where(source == node, node + 1, source)[mine]]),
            weight=np.concatenate([weight, weight[mine]]),
        ),
        target_values=graph.target_values[order],
    )


def with_isolated_feature(graph: AttributionGraph) -> AttributionGraph:
    """One more feature of the first cell, without any edge."""
    nodes, edges = graph.nodes, graph.edges
    columns = {name: np.insert(getattr(nodes, name), 0, 0) for name in NODE_COLUMNS}
    columns["index"][1:] += columns["kind"][1:] == FEATURE  # so that number 0 is free
    columns["activation"][0] = 1.5
    return replace(
        graph,
        nodes=NodeTable(label=["", *nodes.label], **columns),
        edges=replace(edges, target=edges.target + 1, source=edges.source + 1),
        target_values=np.insert(graph.target_values, 0, np.nan),
    )
