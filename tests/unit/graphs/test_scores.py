import math
from dataclasses import replace

import numpy as np
import pytest

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import edge_influence, influence, scores
from pellucid.graphs.tables import Edges, NodeTable
from support.dense import dense_matrix, dense_scores, normalised, series, weights
from support.graphs import random_graph


def small_graph() -> AttributionGraph:
    """token -> feature -> logit, with an error and a bias beside them."""
    return AttributionGraph(
        nodes=NodeTable(
            kind=[0, 1, 2, 3, 4],
            layer=[0, 0, -1, 1, 2],
            position=[0, 0, 0, -1, 0],
            index=[5, -1, 1, -1, 2],
            activation=[1, 0, 0, 0, 4],
            probability=[0, 0, 0, 0, 0.5],
            label=[""] * 5,
        ),
        edges=Edges(target=[0, 4, 4, 4, 4], source=[2, 0, 1, 2, 3], weight=[2, 3, -1, 1, 5]),
        tokens=["a"],
        prompt="a",
        n_layers=2,
        target_values=[2, math.nan, math.nan, math.nan, 8],
    )


def test_hand_computed_figures() -> None:
    graph = small_graph()
    # The logit's row without the bias: 3, 1, 1 of 5, times its probability 0.5.
    np.testing.assert_allclose(influence(graph), [0.3, 0.1, 0.1 + 0.3, 0, 0])
    np.testing.assert_allclose(edge_influence(graph), [0.3, 0.3, 0.1, 0.1, 0])
    result = scores(graph)
    assert result.replacement == pytest.approx(0.4 / 0.5)
    # Sum of (I + w) is 0.8 + 0.5; errors supply 1/5 of the logit, which counts 0.5.
    assert result.completeness == pytest.approx((1.3 - 0.1) / 1.3)


def test_hand_computed_figures_with_biases() -> None:
    graph = small_graph()
    np.testing.assert_allclose(influence(graph, include_bias=True), [0.15, 0.05, 0.2, 0.25, 0])
    assert scores(graph, include_bias=True).replacement == pytest.approx(0.2 / 0.25)


@pytest.mark.parametrize("include_bias", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_equals_the_series_of_dense_powers(seed: int, include_bias: bool) -> None:
    graph = random_graph(seed, n_layers=5, density=0.3)
    matrix = normalised(dense_matrix(graph, include_bias=include_bias))
    reached = series(matrix, weights(graph))
    np.testing.assert_allclose(influence(graph, include_bias=include_bias), reached, atol=1e-14)
    flow = matrix * (reached + weights(graph))[:, None]
    np.testing.assert_allclose(
        edge_influence(graph, include_bias=include_bias),
        flow[graph.edges.target, graph.edges.source],
        atol=1e-14,
    )
    np.testing.assert_allclose(
        scores(graph, include_bias=include_bias),
        dense_scores(graph, include_bias=include_bias),
        rtol=1e-12,
    )


def test_a_graph_without_edges_has_no_scores() -> None:
    result = scores(replace(small_graph(), edges=Edges(target=[], source=[], weight=[])))
    assert math.isnan(result.replacement)
    assert result.completeness == 1
