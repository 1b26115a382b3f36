from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.tables import BIAS, Edges, NodeTable


def table(**changes: Any) -> NodeTable:
    columns: dict[str, Any] = {
        "kind": [0, 0, 1, 2, 2, 3, 4],
        "layer": [0, 1, 0, -1, -1, 0, 2],
        "position": [1, 1, 1, 0, 1, -1, 1],
        "index": [3, 7, -1, 5, 6, -1, 9],
        "activation": [1, 2, 0, 0, 0, 0, 3.5],
        "probability": [0, 0, 0, 0, 0, 0, 0.9],
        "label": [""] * 7,
    }
    return NodeTable(**(columns | changes))


def test_counts_and_kinds() -> None:
    nodes = table()
    assert nodes.counts() == {"feature": 2, "error": 1, "token": 2, "bias": 1, "logit": 1}
    assert np.flatnonzero(nodes.is_kind(BIAS)).tolist() == [5]
    assert nodes.layer.dtype == np.int32


def test_rank_puts_a_layers_bias_before_its_features_and_tokens_before_all() -> None:
    rank = table().rank()
    feature_0, feature_1, error_0, token, _, bias_0, logit = rank
    assert token < bias_0 < feature_0 == error_0 < feature_1 < logit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": [0, 0, 1, 2, 2, 3, 9]}, "node 6 has an unknown kind"),
        ({"activation": [np.nan, 2, 0, 0, 0, 0, 3]}, "node 0 has an activation that is not"),
        ({"probability": [0, 0, 0, 0, 0, 0, 1.5]}, "node 6 has a probability outside 0..1"),
        ({"index": [3, -1, -1, 5, 6, -1, 9]}, "node 1 has no feature number"),
        ({"position": [1, 1, -1, 0, 1, -1, 1]}, "node 2 has no position"),
        ({"layer": [0, 1, 0, -1, 0, 0, 2]}, "node 4 is a token with a layer"),
        ({"layer": [1, 0, 0, -1, -1, 0, 2]}, "node 0 is out of order"),
        ({"kind": [1, 0, 0, 2, 2, 3, 4], "index": [-1, 3, 7, 5, 6, -1, 9]}, "out of order"),
        ({"layer": [0, 0, 0, -1, -1, 0, 2], "index": [7, 7, -1, 5, 6, -1, 9]}, "listed twice"),
        ({"label": [""] * 6}, "differ in length"),
        ({"label": [None] * 7}, "labels must be text"),
        ({"layer": [0.5, 1, 0, -1, -1, 0, 2]}, "'layer' has values that are not int32"),
        ({"kind": [-1, 0, 1, 2, 2, 3, 4]}, "'kind' has values that are not uint8"),
        ({"index": [2**70, 7, -1, 5, 6, -1, 9]}, "not numbers"),
        ({"index": np.zeros((7, 1))}, r"shape \(7, 1\)"),
    ],
)
def test_a_bad_node_table_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        table(**changes)


def test_logits_keep_the_order_given() -> None:
    nodes = NodeTable(
        kind=[4, 4],
        layer=[1, 1],
        position=[0, 0],
        index=[9, 3],
        activation=[2, 1],
        probability=[0.6, 0.3],
        label=["x", "y"],
    )
    assert nodes.index.tolist() == [9, 3]
    assert nodes.select(np.array([False, True])).label == ["y"]


def test_unsorted_edges_are_sorted_and_zeros_dropped() -> None:
    edges = Edges.from_unsorted(target=[2, 1, 2, 1], source=[1, 0, 0, 3], weight=[1, 2, 3, 0])
    assert edges.target.tolist() == [1, 2, 2]
    assert edges.source.tolist() == [0, 0, 1]
    assert edges.weight.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1, 1], [0, 0], [1, 2]), "edge 1 is out of order or repeated"),
        (([2, 1], [0, 0], [1, 2]), "edge 1 is out of order or repeated"),
        (([1, 2], [0, 0], [1, np.inf]), "edge 1 has a weight that is not finite"),
        (([1], [0, 0], [1, 2]), "differ in length"),
    ],
)
def test_bad_edges_are_refused(columns: tuple[list, list, list], message: str) -> None:
    target, source, weight = columns
    with pytest.raises(GraphError, match=message):
        Edges(target=target, source=source, weight=weight)
