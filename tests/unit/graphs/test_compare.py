import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.compare import compare
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune, surviving
from pellucid.graphs.scores import influence, logit_weights
from pellucid.graphs.tables import BIAS
from support.graphs import random_graph
from support.relabel import renumbered, with_noise, with_word_inserted

SIZE = {"n_tokens": 4, "features_per_cell": 4, "n_layers": 3}


@pytest.fixture
def graph() -> AttributionGraph:
    return random_graph(0, **SIZE)


def quick(first: AttributionGraph, second: AttributionGraph, **options: Any) -> Any:
    return compare(first, second, **({"bootstraps": 0, "nulls": 0} | options))


@given(st.integers(0, 10**6))
def test_a_graph_is_equal_to_itself(seed: int) -> None:
    graph = random_graph(seed)
    found = quick(graph, graph)
    kept, edges = surviving(graph, 0.8, 0.98)
    assert found.nodes.counts() == {"only_first": 0, "only_second": 0, "both": kept.sum()}
    assert found.edges.counts() == {"only_first": 0, "only_second": 0, "both": edges.sum()}
    assert not found.nodes.change.any()
    assert (found.nodes.first == found.nodes.second).all()
    assert found.figures["edge_jaccard"].value == 1


def test_rows_are_the_nodes_and_edges_of_the_pruned_graphs(graph: AttributionGraph) -> None:
    other = with_noise(graph, 1, 0.5)
    found = quick(graph, other)
    for which, (whole, table) in enumerate(((graph, found.nodes), (other, found.nodes))):
        numbers = (table.first, table.second)[which][:, 0]
        kept = (table.kept_first, table.kept_second)[which]
        assert sorted(numbers[kept]) == np.flatnonzero(surviving(whole, 0.8, 0.98)[0]).tolist()
        expected = influence(whole)[numbers] / logit_weights(whole).sum()
        np.testing.assert_allclose((table.value_first, table.value_second)[which], expected)
    edges = found.edges
    assert edges.kept_first.sum() == len(prune(graph).edges)
    weight = {
        (target, source): value
        for target, source, value in zip(
            other.edges.target, other.edges.source, other.edges.weight, strict=True
        )
    }
    for (target, source), value in zip(edges.second.tolist(), edges.value_second, strict=True):
        assert value == weight[target, source]
    assert (np.diff(np.abs(found.nodes.change)) <= 0).all()
    assert (np.diff(np.abs(edges.change)) <= 0).all()


def test_swapping_the_graphs_swaps_the_sides(graph: AttributionGraph) -> None:
    other = with_noise(graph, 1, 0.5)
    one, two = quick(graph, other), quick(other, graph)
    assert one.nodes.counts()["only_first"] == two.nodes.counts()["only_second"]
    for name, figure in one.figures.items():
        assert figure.value == pytest.approx(two.figures[name].value)
    np.testing.assert_allclose(np.sort(one.edges.change), np.sort(-two.edges.change))


def test_an_inserted_word_moves_positions_alone(graph: AttributionGraph) -> None:
    longer = with_word_inserted(graph, 2)
    found = quick(graph, longer)
    assert found.positions.tolist() == [0, 1, -1, 2, 3]
    assert found.figures["edge_jaccard"].value == 1
    by_hand = quick(graph, longer, alignment={0: 0, 1: 1, 3: 2, 4: 3})
    assert by_hand.figures["edge_jaccard"].value == 1
    assert quick(graph, longer, alignment="start").figures["edge_jaccard"].value < 1


def test_another_dictionary_with_a_map_and_by_place(graph: AttributionGraph) -> None:
    other, back = renumbered(graph, 7)
    graph = replace(graph, metadata={"dictionaries": "one"})
    other = replace(other, metadata={"dictionaries": "two"})
    with pytest.raises(GraphError, match="different dictionaries"):
        compare(graph, other)
    assert quick(graph, other, features=back).nodes.counts()["only_second"] == 0
    assert quick(graph, other, features="cell").figures["edge_jaccard"].value == 1
    assert quick(graph, other, features={}).figures["node_jaccard"].value == 0
    by_place = quick(graph, other, features="cell").nodes
    assert len(by_place) < len(prune(graph).nodes)
    np.testing.assert_allclose(by_place.change, 0, atol=1e-12)


def test_intervals_and_chance_hold_what_they_should(graph: AttributionGraph) -> None:
    found = compare(graph, with_noise(graph, 1, 0.5), bootstraps=200, nulls=5)
    for name in ("node_jaccard", "edge_jaccard", "influence_correlation", "edge_correlation"):
        figure = found.figures[name]
        assert figure.low <= figure.value <= figure.high, name
        assert figure.null < figure.value, name
    unrelated = compare(graph, random_graph(9, **SIZE), bootstraps=200, nulls=20)
    figure = unrelated.figures["node_jaccard"]
    assert figure.value == pytest.approx(figure.null, abs=0.1)


def test_the_record_names_what_changed(graph: AttributionGraph) -> None:
    other = with_noise(graph, 1, 0.5)
    record = json.loads(json.dumps(quick(graph, other).to_json(limit=3), allow_nan=False))
    assert len(record["nodes"]["changed"]) == len(record["edges"]["changed"]) == 3
    row = record["edges"]["changed"][0]
    assert set(row) == {"first", "second", "kept", "target", "source"}
    assert row["target"]["kind"] in ("feature", "logit")
    assert set(record["figures"]) == {
        "node_jaccard",
        "edge_jaccard",
        "weighted_edge_jaccard",
        "influence_correlation",
        "edge_correlation",
    }


def test_biases_are_no_part_of_it(graph: AttributionGraph) -> None:
    found = quick(graph, graph)
    assert not (graph.nodes.kind[found.nodes.first[:, 0]] == BIAS).any()
    assert not (graph.nodes.kind[found.edges.first] == BIAS).any()
