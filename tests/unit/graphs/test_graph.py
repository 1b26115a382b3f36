from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.tables import BIAS, FEATURE, LOGIT, TOKEN, Edges
from support.graphs import causal_record, random_graph


def first(graph: Any, kind: int) -> int:
    return int(np.flatnonzero(graph.nodes.is_kind(kind))[0])


def test_row_sums_are_the_sums_of_incoming_weights() -> None:
    graph = random_graph(0)
    dense = np.zeros((len(graph.nodes),) * 2)
    dense[graph.edges.target, graph.edges.source] = graph.edges.weight
    np.testing.assert_allclose(graph.row_sums(), dense.sum(axis=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_values": np.zeros(3)}, "3 target values"),
        ({"n_layers": 2}, "outside 2 layers"),
        ({"n_layers": "3"}, "'n_layers' is '3'"),
        ({"tokens": ["one"]}, "outside 3 layers and 1 tokens"),
        ({"tokens": []}, "list of texts"),
        ({"causal": {"rows": [{"node": 9999}]}}, "names node 9999"),
        ({"prompt": None}, "'prompt' is None"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        replace(random_graph(0), **change)


def test_an_infinite_target_value_is_refused() -> None:
    graph = random_graph(0)
    values = graph.target_values.copy()
    values[2] = np.inf
    with pytest.raises(GraphError, match="node 2 has an infinite value"):
        replace(graph, target_values=values)


def test_edges_must_lead_forward_and_name_nodes() -> None:
    graph = random_graph(0)
    feature, token, logit = (first(graph, kind) for kind in (FEATURE, TOKEN, LOGIT))
    last_feature = int(np.flatnonzero(graph.nodes.is_kind(FEATURE))[-1])
    for target, source, message in [
        (feature, last_feature, "not later in the model"),
        (feature, feature + 1, "not later in the model"),  # same layer
        (token, feature, "not later in the model"),
        (logit + 1, logit, "not later in the model"),
        (len(graph.nodes), feature, "names target"),
        (logit, -1, "names source"),
    ]:
        with pytest.raises(GraphError, match=message):
            replace(graph, edges=Edges(target=[target], source=[source], weight=[1.0]))


def test_a_bias_may_feed_its_own_layer_but_no_earlier_one() -> None:
    graph = random_graph(0, n_biases=3)
    bias_of_1 = int(np.flatnonzero((graph.nodes.kind == BIAS) & (graph.nodes.layer == 1))[0])
    for layer, allowed in ((1, True), (0, False)):
        target = int(
            np.flatnonzero((graph.nodes.kind == FEATURE) & (graph.nodes.layer == layer))[0]
        )
        edges = Edges(target=[target], source=[bias_of_1], weight=[1.0])
        if allowed:
            assert len(replace(graph, edges=edges).edges) == 1
        else:
            with pytest.raises(GraphError, match="not later"):
                replace(graph, edges=edges)


def test_subgraph_keeps_weights_between_kept_nodes_and_renumbers_the_causal_rows() -> None:
    graph = random_graph(1)
    graph = replace(graph, causal=causal_record(graph, features=4))
    keep = np.random.default_rng(0).random(len(graph.nodes)) < 0.6
    keep[[0, 1]] = False, True
    part = graph.subgraph(keep)

    dense = np.zeros((len(graph.nodes),) * 2, dtype=np.float32)
    dense[graph.edges.target, graph.edges.source] = graph.edges.weight
    small = np.zeros((keep.sum(),) * 2, dtype=np.float32)
    small[part.edges.target, part.edges.source] = part.edges.weight
    np.testing.assert_array_equal(small, dense[np.ix_(keep, keep)])
    np.testing.assert_array_equal(part.target_values, graph.target_values[keep])

    assert graph.causal is not None and part.causal is not None
    for before, after in zip(graph.causal["rows"], part.causal["rows"], strict=True):
        if not keep[before["node"]]:
            assert after["node"] is None
        else:
            assert part.nodes.index[after["node"]] == graph.nodes.index[before["node"]]
        assert after["real"] == before["real"]
