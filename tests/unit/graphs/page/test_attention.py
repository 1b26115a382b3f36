import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html
from pellucid.graphs.page.attention import attention_payload
from pellucid.graphs.tables import FEATURE, LOGIT
from support.attention import attention_record
from support.graphs import random_graph


@pytest.fixture
def graph() -> AttributionGraph:
    graph = random_graph(3)
    return replace(graph, metadata={"attention": attention_record(graph)})


def test_sources_get_the_numbers_they_have_on_the_page(graph: AttributionGraph) -> None:
    features = np.flatnonzero(graph.nodes.is_kind(FEATURE))
    keep = np.ones(len(graph.nodes), dtype=bool)
    keep[features[1]] = False
    payload = attention_payload(graph.subgraph(keep))
    assert payload is not None
    head = payload["heads"][0]
    assert head["pairs"][0]["query"]["node"] == 0
    assert head["pairs"][0]["key"] | {"kind": "constant", "node": None} == head["pairs"][0]["key"]
    assert head["pairs"][1]["query"]["node"] is None, "left out of the page"
    assert head["pairs"][1]["key"]["node"] is None, "not a node at all"
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    assert {edge["target"] for edge in payload["edges"]} == {logit - 1}
    assert head["removals"][0]["source"]["node"] == 0
    assert head["check"]["real"] == 0.61


def test_a_graph_without_a_record_has_none() -> None:
    assert attention_payload(random_graph(0)) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("heads"),
        lambda record: record.update(heads=7),
        lambda record: record["heads"][0].update(qk=None),
        lambda record: record["edges"][0].update(weight="heavy"),
        lambda record: record["heads"][0]["qk"]["pairs"].append("pair"),
        lambda record: record["heads"][0]["qk"]["pairs"][0].update(key={"kind": "x", "layer": []}),
    ],
)
def test_a_record_that_is_not_ours_is_refused(graph: AttributionGraph, damage: Any) -> None:
    damage(graph.metadata["attention"])
    with pytest.raises(GraphError, match=r"attention record is malformed .*; trace again"):
        to_html(graph)


def test_hostile_text_in_a_record_stays_data(graph: AttributionGraph) -> None:
    evil = "</script><script>alert(1)</script>"
    graph.metadata["attention"]["heads"][0]["qk"]["pairs"][0]["query"] = {"kind": evil}
    page = to_html(graph)
    assert evil not in page
    assert json.dumps(evil)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e") in page
