import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune, surviving
from pellucid.graphs.scores import edge_influence, influence
from pellucid.graphs.stability import stability, threshold_stability
from pellucid.graphs.tables import FEATURE
from support.graphs import random_graph
from support.relabel import renumbered, with_noise, with_word_inserted

SIZE = {"n_tokens": 4, "features_per_cell": 4, "n_layers": 3}
Name = tuple[int, ...]


def names(graph: AttributionGraph) -> list[Name]:
    nodes = graph.nodes
    columns = (nodes.kind, nodes.layer, nodes.position, nodes.index)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def edges(graph: AttributionGraph, values: np.ndarray) -> dict[tuple[Name, Name], float]:
    name = names(graph)
    pairs = zip(graph.edges.target, graph.edges.source, values, strict=True)
    return {(name[target], name[source]): value for target, source, value in pairs}


def by_sets(first: AttributionGraph, second: AttributionGraph) -> dict[str, float]:
    """The figures from Python sets and SciPy."""
    kept = [surviving(graph, 0.8, 0.98) for graph in (first, second)]
    both = (first, second)
    weights = [edges(g, g.edges.weight) for g in both]
    flows = [edges(g, edge_influence(g) / edge_influence(g).sum()) for g in both]
    links = [
        {pair for pair, keep in zip(weight, mask[1], strict=True) if keep}
        for weight, mask in zip(weights, kept, strict=True)
    ]
    nodes = [
        {name for name, keep in zip(names(g), mask[0], strict=True) if keep and name[0] == FEATURE}
        for g, mask in zip(both, kept, strict=True)
    ]
    reached = [dict(zip(names(g), influence(g), strict=True)) for g in both]
    shared_nodes, shared_links = sorted(nodes[0] & nodes[1]), sorted(links[0] & links[1])
    shown = [{p: flow[p] for p in link} for flow, link in zip(flows, links, strict=True)]
    union = links[0] | links[1]
    return {
        "node_jaccard": len(nodes[0] & nodes[1]) / len(nodes[0] | nodes[1]),
        "edge_jaccard": len(links[0] & links[1]) / len(union),
        "weighted_edge_jaccard": sum(min(s.get(p, 0) for s in shown) for p in union)
        / sum(max(s.get(p, 0) for s in shown) for p in union),
        "influence_correlation": spearmanr(
            *[[values[name] for name in shared_nodes] for values in reached]
        ).statistic,
        "edge_correlation": spearmanr(
            *[[values[pair] for pair in shared_links] for values in weights]
        ).statistic,
    }


def similar(count: int, noise: float = 0.6) -> list[AttributionGraph]:
    graph = random_graph(0, **SIZE)
    return [with_noise(graph, seed, noise) for seed in range(count)]


def test_figures_are_those_of_sets_averaged_over_pairs() -> None:
    graphs = [replace(g, tokens=similar(1)[0].tokens) for g in similar(3)]
    found = stability(graphs, bootstraps=0, nulls=0)
    expected = [by_sets(*pair) for pair in combinations(graphs, 2)]
    for name in expected[0]:
        value = getattr(found, name).value
        assert value == pytest.approx(np.mean([figures[name] for figures in expected])), name


def test_equal_graphs_are_perfectly_stable_and_chance_is_far_below() -> None:
    found = stability([random_graph(0, **SIZE)] * 4, bootstraps=50)
    for name in ("node_jaccard", "edge_jaccard", "weighted_edge_jaccard", "influence_correlation"):
        figure = getattr(found, name)
        assert (figure.value, figure.low, figure.high) == pytest.approx((1, 1, 1)), name
        assert figure.null < 0.7, name


def test_a_word_that_nothing_reads_changes_nothing() -> None:
    graph = random_graph(3, **SIZE)
    figures = stability([graph, with_word_inserted(graph, 2)], nulls=0)
    assert figures.edge_jaccard.value == 1
    ignored = stability([graph, with_word_inserted(graph, 0)], nulls=0, positions="start")
    assert ignored.edge_jaccard.value < 1
    assert stability([graph, with_word_inserted(graph, 0)], nulls=0, positions="end").edge_jaccard


def test_graphs_of_two_dictionaries_are_compared_by_place() -> None:
    graph = random_graph(3, **SIZE)
    first = replace(graph, metadata={"dictionaries": "one"})
    second = replace(renumbered(graph, 0)[0], metadata={"dictionaries": "two"})
    with pytest.raises(GraphError, match="different dictionaries"):
        stability([first, second])
    assert stability([first, second], features="cell").edge_jaccard.value == 1
    assert stability([first, second], features="same").node_jaccard.value < 0.2


def test_less_noise_is_more_stable_and_the_interval_holds_the_value() -> None:
    much, little = (stability(similar(6, noise), bootstraps=300) for noise in (1.5, 0.1))
    assert much.edge_jaccard.value < little.edge_jaccard.value
    for figure in (much.edge_jaccard, little.influence_correlation):
        assert figure.low <= figure.value <= figure.high
        assert figure.high - figure.low < 0.6


def test_two_graphs_have_no_interval() -> None:
    found = stability(similar(2), bootstraps=50).edge_jaccard
    assert (found.low, found.high) == (None, None)
    assert found.null is not None


def test_the_same_seed_gives_the_same_record() -> None:
    records = [json.dumps(stability(similar(3), bootstraps=20).to_json()) for _ in range(2)]
    assert records[0] == records[1]
    record = json.loads(records[0])
    assert record["graphs"] == 3
    assert set(record["edge_jaccard"]) == {"value", "low", "high", "null"}


def test_thresholds_by_sets() -> None:
    graph = random_graph(1, **SIZE)
    found = threshold_stability(graph, (0.9, 0.5, 0.7), bootstraps=100)
    assert [step.thresholds for step in found.steps] == [(0.5, 0.7), (0.7, 0.9)]
    for step in found.steps:
        parts = [prune(graph, level) for level in step.thresholds]
        links = [set(edges(part, part.edges.weight)) for part in parts]
        expected = len(links[0] & links[1]) / len(links[0] | links[1])
        assert step.edge_jaccard.value == pytest.approx(expected)
        assert step.edges == (len(links[0]), len(links[1]))
        nodes = [{name for name in names(part) if name[0] == FEATURE} for part in parts]
        assert step.features == (len(nodes[0]), len(nodes[1]))
        shared = sorted(nodes[0] & nodes[1])
        reached = [dict(zip(names(part), influence(part), strict=True)) for part in parts]
        expected = spearmanr(*[[values[name] for name in shared] for values in reached]).statistic
        assert step.influence_correlation.value == pytest.approx(expected)
        assert step.node_jaccard.low <= step.node_jaccard.value <= step.node_jaccard.high
        assert step.node_jaccard.null < step.node_jaccard.value
    json.dumps(found.to_json(), allow_nan=False)


def test_bad_requests_are_refused() -> None:
    graph = random_graph(0)
    for call, message in (
        (lambda: stability([graph]), "there is 1; give at least 2"),
        (lambda: stability([graph, graph], node_threshold=2), "node_threshold is 2"),
        (lambda: stability([graph, graph], bootstraps=-1), "bootstraps is -1"),
        (lambda: threshold_stability(graph, (0.8, 0.8)), "at least two different"),
        (lambda: threshold_stability(graph, (0.8, 1.8)), "node_threshold is 1.8"),
    ):
        with pytest.raises(GraphError, match=message):
            call()
