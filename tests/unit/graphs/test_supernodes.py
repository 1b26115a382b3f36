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
from pellucid.graphs.prune import prune
from pellucid.graphs.scores import influence
from pellucid.graphs.supernodes import (
    Supernode,
    grouped,
    supernodes_by_hand,
    supernodes_of,
    with_supernodes,
)
from pellucid.graphs.tables import FEATURE, LOGIT, NODE_COLUMNS, NodeTable
from support.graphs import random_graph

seeds = st.integers(0, 10**6)


def features(graph: AttributionGraph) -> np.ndarray:
    return np.flatnonzero(graph.nodes.kind == FEATURE)


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
