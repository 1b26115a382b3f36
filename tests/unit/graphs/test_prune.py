import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.prune import cumulative_influence, most_influential, prune, surviving
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN
from support.dense import dense_prune
from support.graphs import random_graph


@pytest.mark.parametrize("include_bias", [False, True])
@pytest.mark.parametrize("thresholds", [(0.8, 0.98), (0.5, 0.7), (0.3, 0.3)])
@pytest.mark.parametrize("seed", range(5))
def test_pruning_equals_the_dense_reference(
    seed: int, thresholds: tuple[float, float], include_bias: bool
) -> None:
    graph = random_graph(seed, n_layers=4, density=0.4)
    keep_nodes, keep_edges = surviving(graph, *thresholds, include_bias=include_bias)
    nodes, pairs = dense_prune(graph, *thresholds, include_bias=include_bias)
    np.testing.assert_array_equal(keep_nodes, nodes)
    np.testing.assert_array_equal(keep_edges, pairs[graph.edges.target, graph.edges.source])


def test_a_pruned_graph_keeps_tokens_and_logits_and_drops_biases() -> None:
    graph = random_graph(0)
    before, after = graph.nodes.counts(), prune(graph, 0.3, 0.5).nodes.counts()
    assert (after["token"], after["logit"]) == (before["token"], before["logit"])
    assert after["bias"] == 0 < before["bias"]
    assert after["feature"] < before["feature"]
    assert prune(graph, 0.99, 1, include_bias=True).nodes.counts()["bias"] > 0


def test_no_loose_end_is_left() -> None:
    for seed in range(10):
        part = prune(random_graph(seed, density=0.2), 0.6, 0.8)
        has_output = np.isin(np.arange(len(part.nodes)), part.edges.source)
        has_input = np.isin(np.arange(len(part.nodes)), part.edges.target)
        assert has_output[part.nodes.is_kind(FEATURE, ERROR, BIAS)].all()
        assert has_input[part.nodes.is_kind(FEATURE)].all()
        assert part.nodes.is_kind(TOKEN, LOGIT).sum() == 7


@pytest.mark.parametrize("bad", [(-0.1, 0.9), (0.8, 1.1), (float("nan"), 0.9)])
def test_thresholds_outside_0_to_1_are_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(GraphError, match="give a share between 0 and 1"):
        prune(random_graph(0), *bad)


def test_most_influential_takes_the_fewest_values_and_their_ties() -> None:
    values = np.array([1.0, 4.0, 1.0, 2.0])
    assert most_influential(values, 0.5).tolist() == [False, True, False, False]
    assert most_influential(values, 0.7).tolist() == [False, True, False, True]
    assert most_influential(values, 0.8).tolist() == [True, True, True, True]  # a tie at 1
    assert not most_influential(np.zeros(3), 0.8).any()
    assert len(most_influential(np.zeros(0), 0.8)) == 0


def test_cumulative_influence_is_the_share_of_a_node_and_those_above_it() -> None:
    result = cumulative_influence(np.array([1.0, 4.0, 0.0, 3.0]))
    np.testing.assert_allclose(result, [1.0, 0.5, 1.0, 0.875])
    assert cumulative_influence(np.zeros(2)).tolist() == [1, 1]
