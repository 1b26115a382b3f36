from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.proposals import profile_similarity, propose
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE, Edges
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
