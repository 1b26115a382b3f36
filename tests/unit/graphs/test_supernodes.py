from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.proposals import profile_similarity, propose
from pellucid.graphs.prune import prune
from pellucid.graphs.scores import influence
from pellucid.graphs.supernodes import (
    Supernode,
    grouped,
    supernodes_by_hand,
    supernodes_of,
    with_supernodes,
)
from pellucid.graphs.tables import FEATURE, LOGIT, NODE_COLUMNS, Edges, NodeTable
from support.graphs import random_graph

seeds = st.integers(0, 10**6)


def features(graph: AttributionGraph) -> np.ndarray:
    return np.flatnonzero(graph.nodes.kind == FEATURE)


def dense_similarity(graph: AttributionGraph, one: int, other: int) -> float:
    """Two candidates compared as the definition reads, on dense vectors."""
    size = len(graph.nodes)
    weight = np.zeros((size, size))
    weight[graph.edges.target, graph.edges.source] = graph.edges.weight
    share = weight / np.abs(weight).sum(axis=1, keepdims=True).clip(1e-30)
    rank = graph.nodes.rank()
    before = rank < min(rank[one], rank[other])
    after = rank > max(rank[one], rank[other])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / norm if norm > 1e-12 else 0.0

    read = cosine(weight[one][before], weight[other][before])
    return (read + cosine(share[:, one][after], share[:, other][after])) / 2


@given(seeds, st.sampled_from([0.2, 0.7, 1.0]))
def test_similarity_is_that_of_dense_vectors(seed: int, density: float) -> None:
    graph = random_graph(seed, density=density)
    candidates = features(graph)
    found = profile_similarity(graph, candidates)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    rng = np.random.default_rng(seed)
    for one, other in rng.integers(len(candidates), size=(30, 2)):
        if one != other:
            expected = dense_similarity(graph, int(candidates[one]), int(candidates[other]))
            assert found[one, other] == pytest.approx(expected, abs=1e-6)


def with_copies(graph: AttributionGraph) -> AttributionGraph:
    """Every second feature of a cell copies the first one's inputs and outputs, near enough."""
    size = len(graph.nodes)
    weight = np.zeros((size, size))
    weight[graph.edges.target, graph.edges.source] = graph.edges.weight
    even = features(graph)[::2]
    weight[even + 1] = 2 * weight[even]
    weight[:, even + 1] = weight[:, even]
    target, source = np.nonzero(weight)
    edges = Edges(target=target, source=source, weight=weight[target, source])
    return replace(graph, edges=edges)


def test_copies_are_found_and_strangers_are_not() -> None:
    graph = with_copies(random_graph(1, n_tokens=5, n_layers=4, density=1))
    found = propose(graph, similarity=0.95)
    pairs = {tuple(pair) for pair in features(graph).reshape(-1, 2).tolist()}
    # The last layer of an early position writes to nothing that could tell its features apart.
    assert {group.nodes for group in found} <= pairs
    assert len(found) > 0.7 * len(pairs)
    assert len({group.label for group in found}) == len(found)
    reached = [influence(graph)[list(group.nodes)].sum() for group in found]
    assert reached == sorted(reached, reverse=True)
    assert propose(random_graph(1, n_tokens=5, n_layers=4), similarity=0.95) == []


@given(seeds, st.floats(0.05, 0.6), st.integers(1, 3), st.booleans())
def test_members_are_all_alike_and_near(
    seed: int, similarity: float, band: int, same_position: bool
) -> None:
    graph = random_graph(seed, features_per_cell=3)
    candidates = features(graph)
    alike = profile_similarity(graph, candidates)
    seen: set[int] = set()
    for group in propose(graph, similarity=similarity, band=band, same_position=same_position):
        nodes = np.array(group.nodes)
        rows = np.searchsorted(candidates, nodes)
        assert len(nodes) > 1
        assert (alike[np.ix_(rows, rows)] + np.eye(len(rows)) >= similarity - 1e-6).all()
        assert np.ptp(graph.nodes.layer[nodes]) < band
        assert not same_position or len(set(graph.nodes.position[nodes])) == 1
        assert not seen & set(group.nodes)
        seen |= set(group.nodes)


def test_few_features_make_no_group() -> None:
    graph = random_graph(0, n_layers=1, n_tokens=1, features_per_cell=1)
    assert propose(graph) == []
    for options, message in (
        ({"similarity": 0}, "similarity is 0"),
        ({"band": 0}, "band is 0"),
        ({"max_features": 1}, "max_features 1"),
    ):
        with pytest.raises(GraphError, match=message):
            propose(graph, **options)


@given(seeds)
def test_grouping_sums_edges(seed: int) -> None:
    graph = random_graph(seed)
    rng = np.random.default_rng(seed)
    members = rng.permutation(features(graph))
    groups = [
        Supernode(label="a", nodes=tuple(members[:4].tolist())),
        Supernode(label="b", nodes=tuple(members[4:7].tolist())),
    ]
    found = grouped(graph, groups)
    owner = {node: row for row, nodes in enumerate(found.members) for node in nodes}
    assert sorted(owner) == list(range(len(graph.nodes)))
    expected: dict[tuple[int, int], float] = {}
    edges = graph.edges
    for target, source, weight in zip(edges.target, edges.source, edges.weight, strict=True):
        pair = owner[int(target)], owner[int(source)]
        if pair[0] != pair[1]:
            expected[pair] = expected.get(pair, 0) + float(weight)
    pairs = list(zip(found.target.tolist(), found.source.tolist(), strict=True))
    assert set(pairs) == set(expected)
    np.testing.assert_allclose(found.weight, [expected[pair] for pair in pairs], atol=1e-5)
    np.testing.assert_allclose(found.influence.sum(), influence(graph).sum())
    assert found.label[:2] == ["a", "b"]
    assert found.is_supernode.sum() == 2
    alone = grouped(graph, groups, rest=False)
    assert alone.members == [group.nodes for group in groups]
    assert set(zip(alone.target, alone.source, strict=True)) <= {(0, 1), (1, 0)}


def test_groups_by_hand_survive_pruning_and_saving(tmp_path: Path) -> None:
    graph = random_graph(2)
    part = prune(graph, 0.6, 0.9)
    kept = [name for name in node_names(part) if name in set(node_names(graph))][:3]
    dropped = next(name for name in node_names(graph) if name not in set(node_names(part)))
    groups = supernodes_by_hand(graph, {"some": [*kept, dropped], "one": [len(graph.nodes) - 1]})
    marked = with_supernodes(graph, groups)
    assert supernodes_of(marked) == groups
    marked.save(tmp_path / "a.graph")
    assert supernodes_of(AttributionGraph.load(tmp_path / "a.graph")) == groups
    left = supernodes_of(prune(marked, 0.6, 0.9))
    assert [group.label for group in left] == ["some", "one"]
    assert [node_names(part)[node] for node in left[0].nodes] == kept
    assert supernodes_of(graph) == []
    assert len(grouped(marked).label) == len(graph.nodes) - len(groups[0].nodes) + 1


def test_names_are_unique_even_of_equal_logits() -> None:
    graph = random_graph(0)
    nodes = graph.nodes
    columns = {name: getattr(nodes, name) for name in NODE_COLUMNS}
    columns["index"] = np.where(nodes.kind == LOGIT, 7, nodes.index)
    same = replace(graph, nodes=NodeTable(label=nodes.label, **columns))
    names = node_names(same)
    assert len(set(names)) == len(names)
    assert names[-3:] == ["4_7_3", "4_7_3-2", "4_7_3-3"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": [10**6]}, "'a' names node 1000000, which this graph does not have"),
        ({"a": ["9_9_9"]}, "names node '9_9_9'"),
        ({"a": [1], "b": [1]}, "'a' and 'b' both hold node 1"),
        ({"a": [1, 1]}, "'a' and 'a' both hold node 1"),
        ({"a": []}, "'a' is empty"),
    ],
)
def test_bad_groups_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        supernodes_by_hand(random_graph(0), groups)


def test_bad_records_and_equal_labels_are_refused() -> None:
    graph = random_graph(0)
    twice = [Supernode(label="a", nodes=(0,)), Supernode(label="a", nodes=(1,))]
    with pytest.raises(GraphError, match="share a label"):
        with_supernodes(graph, twice)
    for record in ("a", [["a", 1]], [[]], [7]):
        with pytest.raises(GraphError, match="not a list of"):
            supernodes_of(replace(graph, metadata={"supernodes": record}))
