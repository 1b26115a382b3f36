import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune, surviving
from pellucid.graphs.recurring import RecurringCircuit, recurring_circuit
from pellucid.graphs.scores import influence, logit_weights
from pellucid.graphs.tables import FEATURE, LOGIT, NODE_KINDS, TOKEN
from support.graphs import random_graph
from support.relabel import with_noise, with_word_inserted

SIZE = {"n_tokens": 3, "features_per_cell": 3, "n_layers": 3}


def prompts(count: int, noise: float = 1.0) -> list[AttributionGraph]:
    """Graphs of one circuit under noise, of prompts that differ in length at the start."""
    graphs = [with_noise(random_graph(0, **SIZE), seed, noise) for seed in range(count)]
    return [with_word_inserted(g, 0) if seed % 2 else g for seed, g in enumerate(graphs)]


def name(graph: AttributionGraph, node: int) -> tuple[Any, ...]:
    nodes = graph.nodes
    kind, index = int(nodes.kind[node]), int(nodes.index[node])
    if kind == LOGIT:
        return "logit", 0, "output", int((nodes.kind[:node] == LOGIT).sum())
    role = str(nodes.position[node] - len(graph.tokens))
    return NODE_KINDS[kind], int(nodes.layer[node]), role, 0 if kind == TOKEN else index


def found_nodes(circuit: RecurringCircuit) -> list[tuple[Any, ...]]:
    return list(
        zip(
            circuit.kind,
            circuit.layer.tolist(),
            circuit.role,
            circuit.index.tolist(),
            strict=True,
        )
    )


@given(st.integers(2, 7), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_frequencies_and_means_are_those_counted_by_hand(count: int, share: float) -> None:
    graphs = prompts(count)
    nodes: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    reached: Counter[Any] = Counter()
    weight: Counter[Any] = Counter()
    for graph in graphs:
        keep, keep_edges = surviving(graph, 0.8, 0.98)
        for node in np.flatnonzero(keep).tolist():
            nodes[name(graph, node)] += 1
            reached[name(graph, node)] += influence(graph)[node] / logit_weights(graph).sum()
        for edge in np.flatnonzero(keep_edges).tolist():
            ends = graph.edges.target[edge], graph.edges.source[edge]
            pair = name(graph, ends[0]), name(graph, ends[1])
            edges[pair] += 1
            weight[pair] += graph.edges.weight[edge]
    circuit = recurring_circuit(graphs, share=share, bootstraps=0, nulls=0)
    names = found_nodes(circuit)
    assert set(names) == {key for key, times in nodes.items() if times >= share * count}
    for row, key in enumerate(names):
        assert circuit.nodes.frequency[row] == nodes[key] / count
        assert circuit.nodes.mean[row] == pytest.approx(reached[key] / nodes[key])
    expected = {key for key, times in edges.items() if times >= share * count}
    ends = [
        (names[t], names[s])
        for t, s in zip(circuit.target.tolist(), circuit.source.tolist(), strict=True)
    ]
    assert set(ends) == expected
    for row, key in enumerate(ends):
        assert circuit.edges.frequency[row] == edges[key] / count
        assert circuit.edges.mean[row] == pytest.approx(weight[key] / edges[key], rel=1e-5)
    assert (np.diff(circuit.nodes.frequency) <= 0).all()


def test_one_circuit_recurs_and_chance_does_not() -> None:
    circuit = recurring_circuit(prompts(8, noise=0.3), share=0.75, bootstraps=200)
    features = circuit.kind.count("feature")
    always = len(circuit.kind) - features
    assert features > 5
    assert circuit.null_nodes is not None
    assert circuit.null_nodes - always < features / 2
    assert circuit.null_edges < len(circuit.target) / 2
    low, high = circuit.nodes.frequency_interval.T
    assert ((low <= circuit.nodes.frequency) & (circuit.nodes.frequency <= high)).all()
    low, high = circuit.edges.mean_interval.T
    assert ((low <= circuit.edges.mean) & (circuit.edges.mean <= high)).mean() > 0.95


def test_the_interval_of_a_frequency_is_the_binomial_one() -> None:
    graphs = prompts(20)
    circuit = recurring_circuit(graphs, share=0.3, bootstraps=2000, nulls=0)
    p = circuit.nodes.frequency
    middling = (p > 0.4) & (p < 0.7)
    assert middling.any()
    width = np.diff(circuit.nodes.frequency_interval[middling], axis=1)[:, 0]
    expected = 2 * 1.96 * np.sqrt(p[middling] * (1 - p[middling]) / 20)
    np.testing.assert_allclose(width, expected, rtol=0.2)


def test_roles_by_label_and_without_position() -> None:
    graphs = prompts(4, noise=0.0)
    labels = [[None] * (len(graph.tokens) - 2) + ["subject", "verb"] for graph in graphs]
    circuit = recurring_circuit(graphs, share=1, roles=labels, bootstraps=0, nulls=0)
    assert set(circuit.role) == {
        "subject",
        "verb",
        "output",
    }
    anywhere = recurring_circuit(graphs, share=1, roles="any", bootstraps=0, nulls=0)
    kept = prune(graphs[0]).nodes
    features = kept.kind == FEATURE
    pairs = np.unique(np.stack([kept.layer[features], kept.index[features]]), axis=1)
    assert anywhere.kind.count("feature") == pairs.shape[1]
    started = recurring_circuit(graphs, share=1, roles="start", bootstraps=0, nulls=0)
    assert "feature" not in started.kind


def test_the_record_is_json() -> None:
    record = recurring_circuit(prompts(3), share=0.5, bootstraps=20, nulls=2).to_json()
    read = json.loads(json.dumps(record, allow_nan=False))
    assert read["graphs"] == 3
    assert set(read["nodes"][0]) >= {"kind", "layer", "role", "index", "frequency", "mean_low"}
    assert set(read["null"]) == {"nodes", "edges"}
    without = recurring_circuit(prompts(3), bootstraps=0, nulls=0).to_json()
    assert without["nodes"][0]["frequency_low"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graphs": 1}, "at least 2 graphs; there is 1"),
        ({"share": 0}, "share is 0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"roles": "middle"}, "roles are 'middle'"),
        ({"roles": [["a"], ["b"]]}, r"roles have \[1, 1\] labels for prompts of \[3, 4\]"),
        ({"node_threshold": -1}, "node_threshold is -1"),
        ({"nulls": -1}, "nulls is -1"),
    ],
)
def test_bad_requests_are_refused(options: dict[str, Any], message: str) -> None:
    graphs = prompts(options.pop("graphs", 2))
    with pytest.raises(GraphError, match=message):
        recurring_circuit(graphs, **options)


def test_other_dictionaries_are_refused() -> None:
    graphs = [
        replace(graph, metadata={"dictionaries": str(row)}) for row, graph in enumerate(prompts(2))
    ]
    with pytest.raises(GraphError, match="different dictionaries"):
        recurring_circuit(graphs)
