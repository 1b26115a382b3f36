from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.formats.neuronpedia import from_neuronpedia, to_neuronpedia
from pellucid.graphs.identity import align_positions, feature_rule, node_keys
from pellucid.graphs.tables import BIAS, FEATURE, LOGIT, NODE_COLUMNS, TOKEN, NodeTable
from support.graphs import random_graph
from support.relabel import renumbered, with_word_inserted

words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("the capital of texas is", "the capital of ohio is", [0, 1, 2, 3, 4]),
        ("the capital of texas is", "so the capital of texas is", [-1, 0, 1, 2, 3, 4]),
        ("in the capital of texas", "the capital of texas", [1, 2, 3, 4]),
        ("a b c d", "a x y z d", [0, -1, -1, -1, 3]),  # two words for three: no pairing
        ("a b", "c d", [0, 1]),
    ],
)
def test_positions_by_tokens(first: str, second: str, expected: list[int]) -> None:
    assert align_positions(first.split(), second.split()).tolist() == expected


def test_positions_by_place_and_by_hand() -> None:
    assert align_positions("ab", "xyz", "start").tolist() == [0, 1, -1]
    assert align_positions("ab", "xyz", "end").tolist() == [-1, 0, 1]
    assert align_positions("abc", "xy", "end").tolist() == [1, 2]
    assert align_positions("abc", "xy", {1: 0}).tolist() == [-1, 0]


@given(words, words, st.sampled_from(["tokens", "start", "end"]))
def test_an_alignment_is_ascending_and_one_to_one(first: Any, second: Any, rule: Any) -> None:
    place = align_positions(first, second, rule)
    aligned = place[place >= 0]
    assert (np.diff(aligned) > 0).all()
    assert len(place) == len(second)
    assert (aligned < len(first)).all()


@given(words)
def test_a_prompt_aligns_with_itself(prompt: list[str]) -> None:
    assert align_positions(prompt, prompt).tolist() == list(range(len(prompt)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({5: 0}, "maps 5 to 0; the second prompt has 2 positions, the first 3"),
        ({0: 3}, "maps 0 to 3"),
        ({0: 1, 1: 1}, "names a position of the first prompt twice"),
        ("middle", "'middle'; give 'tokens'"),
    ],
)
def test_bad_alignments_are_refused(rule: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        align_positions("abc", "ab", rule)


@given(st.integers(0, 1000))
def test_keys_are_unique(seed: int) -> None:
    graph = random_graph(seed)
    keys = node_keys(graph)
    assert len(np.unique(keys, axis=0)) == len(keys)
    cells = node_keys(graph, features="cell")
    features = graph.nodes.is_kind(FEATURE)
    assert len(np.unique(cells[features], axis=0)) == features.sum() / 2  # two in each


@given(st.integers(0, 1000), st.integers(0, 4))
def test_keys_survive_insertion_and_renumbering(seed: int, at: int) -> None:
    graph = random_graph(seed)
    longer = with_word_inserted(graph, at)
    place = align_positions(graph.tokens, longer.tokens)
    assert (node_keys(longer, positions=place) == node_keys(graph)).all()
    other, back = renumbered(graph, seed)
    old = {tuple(key) for key in node_keys(graph)}
    assert {tuple(key) for key in node_keys(other, features=back)} == old


def test_what_has_no_counterpart_matches_nothing() -> None:
    graph = random_graph(1)
    keys = node_keys(graph, positions=np.full(4, -1), features={})
    same = (keys[:, None] == node_keys(graph)[None]).all(axis=2).any(axis=1)
    # Only a logit, and a bias of no position, are the same without a place.
    assert not same[graph.nodes.is_kind(FEATURE, TOKEN)].any()
    assert same[graph.nodes.is_kind(LOGIT, BIAS)].all()
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_targets_of_one_index_stay_apart() -> None:
    """As a token's logit and its difference to another one have."""
    graph = random_graph(0)
    columns = {name: getattr(graph.nodes, name) for name in NODE_COLUMNS}
    columns["index"] = np.where(graph.nodes.kind == LOGIT, 7, graph.nodes.index)
    graph = replace(graph, nodes=NodeTable(label=graph.nodes.label, **columns))
    keys = node_keys(graph)
    assert len(np.unique(keys, axis=0)) == len(keys)
    record = to_neuronpedia(graph, slug="a", scan="b", node_threshold=None, edge_threshold=None)
    for name in ("node_id", "jsNodeId"):
        assert len({node[name] for node in record["nodes"]}) == len(record["nodes"])
    assert (from_neuronpedia(record).edges.weight == graph.edges.weight).all()


def test_two_features_sent_to_one_are_refused() -> None:
    with pytest.raises(GraphError, match="two features to one"):
        node_keys(random_graph(0), features={(0, 1): (0, 5), (0, 2): (0, 5)})


def test_different_dictionaries_need_a_word() -> None:
    first, second = (
        replace(random_graph(0), metadata={"dictionaries": name}) for name in ("a", "b")
    )
    assert feature_rule(first, first, None) == "same"
    assert feature_rule(first, random_graph(0), None) == "same"
    assert feature_rule(first, second, "cell") == "cell"
    with pytest.raises(GraphError, match=r"different dictionaries \('a' and 'b'\).*give features"):
        feature_rule(first, second, None)
    with pytest.raises(GraphError, match="'feature'; give 'same'"):
        feature_rule(first, second, "feature")  # type: ignore[arg-type]
