"""Fingerprints against networkx, enumerated paths and plain definitions."""

from collections.abc import Iterator
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune
from pellucid.graphs.scores import edge_shares, scores
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN
from pellucid.verification.fingerprints.definition import ROUNDS
from pellucid.verification.fingerprints.fingerprint import fingerprint
from pellucid.verification.fingerprints.hashes import STRONG, labels
from pellucid.verification.fingerprints.measured import MeasuredGraph, entropy, gini
from support.step_graphs import random_step_graph

SEEDS = range(6)


def pruned_network(graph: AttributionGraph) -> nx.DiGraph:
    """The pruned graph without its loose nodes, from sources to targets."""
    small = prune(graph)
    network = nx.DiGraph()
    for target, source, weight in zip(
        small.edges.target.tolist(), small.edges.source.tolist(), small.edges.weight, strict=True
    ):
        network.add_edge(source, target, weight=abs(float(weight)))
    nx.set_node_attributes(network, {n: int(small.nodes.kind[n]) for n in network}, "kind")
    return network


@pytest.mark.parametrize("seed", SEEDS)
def test_topology_agrees_with_networkx(seed: int) -> None:
    graph, place = random_step_graph(seed, n_tokens=6, density=0.5)
    found = fingerprint(graph, place, ["topological"])
    network = pruned_network(graph)
    parts = list(nx.weakly_connected_components(network))
    between = np.array(list(nx.betweenness_centrality(network).values()))
    degree = np.array(list(nx.degree_centrality(network).values()))
    into = np.array(list(nx.in_degree_centrality(network).values()))
    out = np.array(list(nx.out_degree_centrality(network).values()))
    logits = [node for node, kind in network.nodes(data="kind") if kind == LOGIT]
    reach = nx.multi_source_dijkstra_path_length(network.reverse(), logits, weight=None)
    paths = [reach[n] for n, kind in network.nodes(data="kind") if kind == TOKEN and n in reach]
    expected = {
        "nodes": len(network),
        "density": nx.density(network),
        "betweenness_mean": between.mean(),
        "betweenness_max": between.max(),
        "betweenness_std": between.std(),
        "degree_mean": degree.mean(),
        "degree_max": degree.max(),
        "degree_std": degree.std(),
        "in_degree_max": into.max(),
        "in_degree_std": into.std(),
        "out_degree_max": out.max(),
        "out_degree_std": out.std(),
        "components": len(parts),
        "largest_component": max(map(len, parts)) / len(network),
        "path_mean": np.mean(paths),
        "path_max": max(paths),
        "reached_tokens": len(paths) / 6,
        "direct_tokens": paths.count(1) / len(paths),
        "weight_mean": np.mean([w for _, _, w in network.edges(data="weight")]),
    }
    for name, value in expected.items():
        assert found[f"topological.{name}"] == pytest.approx(value, abs=1e-6), name


def paths_to(graph: AttributionGraph, node: int) -> Iterator[tuple[int, ...]]:
    """Every path that ends at a node, as edge numbers from its last edge back."""
    for edge in np.flatnonzero(graph.edges.target == node).tolist():
        yield (edge,)
        for rest in paths_to(graph, int(graph.edges.source[edge])):
            yield (edge, *rest)


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_agree_with_their_enumeration(seed: int) -> None:
    graph, place = random_step_graph(seed, n_tokens=2, n_logits=2, density=0.7)
    nodes, edges = graph.nodes, graph.edges
    share = edge_shares(graph)
    logits = np.flatnonzero(nodes.kind == LOGIT)
    weight = nodes.probability[logits] / nodes.probability[logits].sum()
    ends = np.zeros((len(nodes), 6))
    on_logit = np.zeros((2, len(nodes)))
    for row, (logit, part) in enumerate(zip(logits.tolist(), weight, strict=True)):
        for path in paths_to(graph, logit):
            last = int(edges.source[path[-1]])
            ends[last, len(path)] += part * np.prod(share[list(path)])
            gain = edges.weight[path[0]]
            for before, edge in pairwise(path):
                gain *= edges.weight[edge] / nodes.activation[edges.source[before]]
            on_logit[row, last] += gain
    found = fingerprint(graph, place)
    measured = MeasuredGraph(graph, place)
    np.testing.assert_allclose(measured.effects, weight @ on_logit, rtol=1e-4, atol=1e-4)
    token, error = nodes.kind == TOKEN, nodes.kind == ERROR
    whole = ends[token | error].sum()
    for length in range(1, 5):
        assert found[f"path.mass_{length}"] == pytest.approx(ends[:, length].sum(), abs=1e-6)
        expected = ends[token, length].sum() / whole
        assert found[f"path.token_{length}"] == pytest.approx(expected, abs=1e-6)
        expected = ends[error, length].sum() / whole
        assert found[f"path.error_{length}"] == pytest.approx(expected, abs=1e-6)
    mean = (ends[token | error] * np.arange(6)).sum() / whole
    assert found["path.mean"] == pytest.approx(mean)
    first = int(np.argmax(weight))  # the contrast is the likeliest logit minus the other
    for name, rows in (("effect", nodes.kind == FEATURE), ("input", token | error)):
        contrast = (on_logit[first] - on_logit[1 - first])[rows]
        against = -contrast[contrast < 0].sum() / np.abs(contrast).sum()
        assert found[f"sign.{name}_against"] == pytest.approx(against, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_influence_by_role_and_error_agree_with_loops(seed: int) -> None:
    graph, place = random_step_graph(seed, n_tokens=5)
    found, measured = fingerprint(graph, place), MeasuredGraph(graph, place)
    cells: dict[str, float] = {}
    for node, held in enumerate(measured.held.tolist()):
        kind, layer = int(graph.nodes.kind[node]), int(graph.nodes.layer[node])
        if kind in (BIAS, LOGIT):
            assert held == 0
            continue
        name = {FEATURE: f"feature_{layer}", ERROR: f"error_{layer}", TOKEN: "token"}[kind]
        role = place.roles[int(graph.nodes.position[node])]
        cells[f"role.{name}_{role}"] = cells.get(f"role.{name}_{role}", 0) + held
    shown = {
        name: value
        for name, value in found.items()
        if name.startswith(("role.feature_", "role.error_", "role.token_")) and value
    }
    assert shown == pytest.approx({name: value for name, value in cells.items() if value})
    expected = scores(graph)
    assert found["global.replacement"] == pytest.approx(expected.replacement)
    assert found["global.completeness"] == pytest.approx(expected.completeness)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("features", [False, True])
def test_hashed_labels_part_nodes_as_nested_tuples_do(seed: int, features: bool) -> None:
    graph, place = random_step_graph(seed, n_tokens=5, density=0.3)
    measured = MeasuredGraph(graph, place)
    found, held = labels(measured, features=features)
    assert held.sum() == pytest.approx(1)
    kept_nodes, kept_edges = measured.pruned
    named = np.flatnonzero(kept_nodes & (measured.influence + measured.probability > 0)).tolist()
    nodes = graph.nodes
    own: dict[int, object] = {
        n: (
            int(nodes.kind[n]),
            int(nodes.layer[n]),
            int(measured.role[n]),
            int(nodes.index[n]) if features and nodes.kind[n] == FEATURE else None,
        )
        for n in named
    }
    strong = np.flatnonzero(kept_edges & (measured.shares >= STRONG))
    ends = [(int(graph.edges.source[e]), int(graph.edges.target[e])) for e in strong]
    for number in range(ROUNDS + 1):
        for one in range(len(named)):
            for other in range(one):
                alike = own[named[one]] == own[named[other]]
                assert (found[number][one] == found[number][other]) == alike
        own = {
            n: (
                own[n],
                frozenset(own[s] for s, t in ends if t == n and s in own),
                frozenset(own[t] for s, t in ends if s == n and t in own),
            )
            for n in named
        }


def test_labels_do_not_depend_on_the_process() -> None:
    """Hashed columns of a saved verifier must mean the same tomorrow."""
    found, _ = labels(MeasuredGraph(*random_step_graph(0)))
    assert found[ROUNDS][0] == np.uint64(PINNED)


PINNED = 17925659759446495906


def test_small_measures_by_hand() -> None:
    assert gini(np.array([1.0, 1, 1, 1])) == pytest.approx(0)
    assert gini(np.array([0.0, 0, 0, -3])) == pytest.approx(0.75)
    assert gini(np.zeros(3)) == 0 == gini(np.zeros(0))
    assert entropy(np.array([0.5, 0.5])) == pytest.approx(1)
    assert entropy(np.array([1.0, 0, 0])) == 0 == entropy(np.zeros(2)) == entropy(np.ones(1))
