from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.paths import find_nodes, flow_from_to, strongest_paths
from pellucid.graphs.scores import edge_shares, influence, logit_weights
from pellucid.graphs.tables import BIAS, FEATURE, LOGIT, NODE_COLUMNS, TOKEN, NodeTable
from support.graphs import random_graph

SMALL = {"n_tokens": 2, "features_per_cell": 1, "n_layers": 3, "n_logits": 2}
seeds = st.integers(0, 10**6)


def every_path(graph: AttributionGraph, node: int) -> Iterator[tuple[list[int], list[int]]]:
    """All paths that lead to `node`, as node and edge lists, itself alone included."""
    yield [node], []
    for edge in np.flatnonzero(graph.edges.target == node):
        for nodes, edges in every_path(graph, int(graph.edges.source[edge])):
            yield [*nodes, node], [*edges, int(edge)]


def value(graph: AttributionGraph, nodes: list[int], edges: list[int], by: str) -> float:
    from_bias = graph.nodes.kind[graph.edges.source[edges]] == BIAS
    if from_bias.any():
        return 0
    if by == "share":
        return prod(edge_shares(graph)[edges].tolist())
    inner = nodes[1:-1]
    return prod(graph.edges.weight[edges].tolist()) / prod(graph.nodes.activation[inner].tolist())


@given(seeds, st.sampled_from(["share", "effect"]), st.integers(1, 40))
def test_the_best_paths_are_those_of_all_paths(seed: int, by: Any, count: int) -> None:
    graph = random_graph(seed, **SMALL)
    sources = find_nodes(graph, kind="token")
    logits = find_nodes(graph, kind="logit")
    expected = {
        tuple(nodes): value(graph, nodes, edges, by)
        for target in logits
        for nodes, edges in every_path(graph, int(target))
        if edges and nodes[0] in sources
    }
    found = strongest_paths(graph, sources, logits, count=count, by=by)
    largest = sorted((abs(v) for v in expected.values() if v), reverse=True)[:count]
    np.testing.assert_allclose([abs(path.value) for path in found], largest, rtol=1e-9)
    for path in found:
        assert path.value == pytest.approx(expected[path.nodes], rel=1e-9)
        assert graph.edges.source[list(path.edges)].tolist() == list(path.nodes[:-1])
        assert graph.edges.target[list(path.edges)].tolist() == list(path.nodes[1:])
    assert len({path.nodes for path in found}) == len(found)


@given(seeds, st.sampled_from(["share", "effect"]))
def test_paths_may_pass_sources_and_end_in_features(seed: int, by: Any) -> None:
    graph = random_graph(seed, **SMALL)
    features = find_nodes(graph, kind="feature")
    found = strongest_paths(graph, features, features, count=1000, by=by)
    expected = [
        value(graph, nodes, edges, by)
        for target in features
        for nodes, edges in every_path(graph, int(target))
        if edges and nodes[0] in features
    ]
    np.testing.assert_allclose(
        sorted(path.value for path in found), sorted(v for v in expected if v), rtol=1e-9
    )


@given(seeds, st.sampled_from(["share", "effect"]))
def test_flow_is_the_sum_over_paths_that_meet_one_source(seed: int, by: Any) -> None:
    graph = random_graph(seed, **SMALL)
    rng = np.random.default_rng(seed)
    sources = rng.choice(find_nodes(graph, kind="feature"), 2, replace=False).tolist()
    targets = find_nodes(graph, kind="logit").tolist()
    weight = dict.fromkeys(targets, 1.0)
    if by == "share":
        chance = logit_weights(graph)[targets]
        weight = dict(zip(targets, (chance / chance.sum()).tolist(), strict=True))
    total, through = 0.0, np.zeros(len(graph.nodes))
    for target in targets:
        for nodes, edges in every_path(graph, target):
            if nodes[0] in sources and not set(nodes[1:]) & set(sources):
                part = weight[target] * value(graph, nodes, edges, by)
                total += part
                through[nodes] += part
    flow = flow_from_to(graph, sources, targets, by=by)
    assert flow.total == pytest.approx(total, rel=1e-9, abs=1e-12)
    if abs(total) > 1e-9:
        np.testing.assert_allclose(flow.through, through / total, rtol=1e-7, atol=1e-7)


@given(seeds)
def test_everything_comes_from_the_inputs(seed: int) -> None:
    """All influence of the logits goes back to nodes without inputs; one node's is `influence`."""
    graph = random_graph(seed, density=1)
    roots = np.concatenate([find_nodes(graph, kind=kind) for kind in ("token", "error")])
    logits = find_nodes(graph, kind="logit")
    assert flow_from_to(graph, roots, logits).total == pytest.approx(1)
    node = int(find_nodes(graph, kind="feature")[3])
    chance = logit_weights(graph).sum()
    assert flow_from_to(graph, node, logits).total == pytest.approx(
        influence(graph)[node] / chance, abs=1e-12
    )


def test_the_effect_of_all_inputs_is_the_target_value() -> None:
    """Where activation = pre-activation, what all inputs add is the logit's whole value."""
    graph = random_graph(5, density=1)
    nodes = graph.nodes
    columns = {name: getattr(nodes, name) for name in NODE_COLUMNS}
    columns["activation"] = np.where(nodes.kind == FEATURE, graph.target_values, 0)
    graph = replace(graph, nodes=NodeTable(label=nodes.label, **columns))
    roots = np.flatnonzero(nodes.is_kind(TOKEN, BIAS, 1))
    for logit in find_nodes(graph, kind="logit"):
        flow = flow_from_to(graph, roots, int(logit), by="effect", include_bias=True)
        assert flow.total == pytest.approx(graph.target_values[logit], rel=1e-4)


def test_a_target_that_nothing_reaches_has_no_flow() -> None:
    graph = random_graph(0, density=0)
    assert flow_from_to(graph, 0, len(graph.nodes) - 1).total == 0
    assert strongest_paths(graph, 0, len(graph.nodes) - 1) == []


def test_nodes_are_found_by_what_they_are() -> None:
    graph = random_graph(0)
    nodes = graph.nodes
    place = find_nodes(graph, kind="feature", layer=1, position=-1)
    assert place.tolist() == [14, 15]
    assert find_nodes(graph, layer=1, position=3, index=int(nodes.index[14])).tolist() == [14]
    assert find_nodes(graph, position=-4).tolist() == find_nodes(graph, position=0).tolist()
    assert find_nodes(graph, label=nodes.label[-1].upper()).tolist()[-1] == len(nodes) - 1
    assert (nodes.kind[find_nodes(graph, kind="logit")] == LOGIT).all()
    assert find_nodes(graph, layer=99).tolist() == []
    with pytest.raises(GraphError, match="node kind is 'head'; give one of feature, error"):
        find_nodes(graph, kind="head")
    with pytest.raises(GraphError, match="position is 4; the prompt has 4 tokens"):
        find_nodes(graph, position=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: strongest_paths(g, 0, 10**6), "targets name node 1000000, of"),
        (lambda g: strongest_paths(g, -1, 5), "sources name node -1"),
        (lambda g: strongest_paths(g, [], 5), "there are no sources"),
        (lambda g: strongest_paths(g, 0, 5, count=0), "count is 0"),
        (lambda g: strongest_paths(g, 0, 5, by="weight"), "by 'weight'; give 'share'"),
        (lambda g: flow_from_to(g, [0, 5], 5), "node 5 is a source and a target"),
    ],
)
def test_bad_questions_are_refused(call: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        call(random_graph(0))


def test_effects_need_activations() -> None:
    graph = random_graph(0)
    columns = {name: getattr(graph.nodes, name) for name in NODE_COLUMNS}
    columns["activation"] = np.zeros(len(graph.nodes))
    silent = replace(graph, nodes=NodeTable(label=graph.nodes.label, **columns))
    with pytest.raises(GraphError, match=r"node \d+ has activation 0.*by='share'"):
        strongest_paths(silent, 0, len(graph.nodes) - 1, by="effect")
