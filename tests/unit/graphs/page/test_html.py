import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html
from pellucid.graphs.page.payload import page_payload
from pellucid.graphs.prune import cumulative_influence, surviving
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import BIAS
from support.graphs import causal_record, random_graph


def elements(page: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)


def embedded(page: str) -> dict[str, Any]:
    return json.loads(elements(page, "script")[0])


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.fixture
def graph() -> AttributionGraph:
    graph = random_graph(5, n_layers=4)
    return replace(graph, causal=causal_record(graph), scores={"replacement": 0.8})


def test_only_the_pages_own_script_and_style_may_run(graph: AttributionGraph) -> None:
    page = to_html(graph)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    _, script = elements(page, "script")
    (style,) = elements(page, "style")
    assert policy.group(1).split("; ") == [
        "default-src 'none'",
        f"script-src '{sha256(script)}'",
        f"style-src '{sha256(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_the_page_names_no_address_but_the_svg_namespace(graph: AttributionGraph) -> None:
    assert set(re.findall(r"\w+://[^\s\"'<)]*", to_html(graph))) == {"http://www.w3.org/2000/svg"}


def test_hostile_text_cannot_leave_its_script_element(graph: AttributionGraph) -> None:
    evil = '</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> \u2028 & "'
    labels = [evil] * len(graph.nodes)
    graph = replace(
        graph,
        nodes=replace(graph.nodes, label=labels),
        prompt=evil,
        tokens=[evil] * len(graph.tokens),
        metadata={evil: evil, "@DATA@": "@SCRIPT@"},
    )
    page = to_html(graph)
    assert len(elements(page, "script")) == 2
    assert page.count("<script") == page.count("</script") == 2
    assert "<img" not in page
    assert "\u2028" not in page
    data = embedded(page)
    assert data["prompt"] == evil
    assert set(data["nodes"]["label"]) == {evil}
    assert data["metadata"] == {evil: evil, "@DATA@": "@SCRIPT@"}


def test_what_is_embedded_is_what_survives_pruning(graph: AttributionGraph) -> None:
    data = embedded(to_html(graph))
    nodes, edges = surviving(graph, 1.0, 0.98)
    kept = np.flatnonzero(nodes)
    assert [data["kinds"][kind] for kind in data["nodes"]["kind"]] == [
        data["kinds"][kind] for kind in graph.nodes.kind[kept]
    ]
    np.testing.assert_allclose(data["nodes"]["influence"], influence(graph)[kept], rtol=1e-4)
    np.testing.assert_allclose(
        data["nodes"]["cumulative"], cumulative_influence(influence(graph))[kept], rtol=1e-4
    )
    shown = {
        (int(kept[source]), int(kept[target])): weight
        for source, target, weight in zip(*data["edges"].values(), strict=True)
    }
    expected = {
        (int(source), int(target)): float(weight)
        for source, target, weight in zip(
            graph.edges.source[edges],
            graph.edges.target[edges],
            graph.edges.weight[edges],
            strict=True,
        )
    }
    assert shown.keys() == expected.keys()
    assert all(shown[pair] == pytest.approx(expected[pair], rel=1e-4) for pair in shown)


def test_shown_and_bias_and_the_rest_make_up_each_row(graph: AttributionGraph) -> None:
    data = embedded(to_html(graph))["nodes"]
    kept = np.flatnonzero(surviving(graph, 1.0, 0.98)[0])
    is_bias = graph.nodes.kind[graph.edges.source] == BIAS
    for row, node in enumerate(kept):
        value = graph.target_values[node]
        assert data["value"][row] == (None if np.isnan(value) else pytest.approx(value, rel=1e-4))
        mine = (graph.edges.target == node) & is_bias
        assert data["from_bias"][row] == pytest.approx(graph.edges.weight[mine].sum(), rel=1e-4)


def test_caps_keep_the_strongest_and_are_stated(graph: AttributionGraph) -> None:
    everything = page_payload(graph, max_nodes=10**6, max_edges=10**6)
    capped = page_payload(graph, max_nodes=20, max_edges=15)
    assert everything["whole"]["influence_shown"] == 1
    assert 0.98 <= everything["whole"]["edge_influence_shown"] < 1
    features = sum(kind <= 1 for kind in capped["nodes"]["kind"])
    assert 0 < features <= 20
    assert len(capped["edges"]["weight"]) == 15
    assert capped["whole"]["influence_shown"] < 1
    assert capped["whole"]["edge_influence_shown"] < 1
    assert capped["whole"]["edges"] == len(graph.edges)
    assert max(capped["nodes"]["cumulative"][: features or 1]) <= capped["whole"]["influence_shown"]


def test_causal_rows_point_at_embedded_nodes(graph: AttributionGraph) -> None:
    capped = page_payload(graph, max_nodes=20, max_edges=100)
    rows = capped["causal"]["rows"]
    assert {row["node"] is None for row in rows} == {True, False}
    for row in rows:
        if row["node"] is not None:
            assert capped["nodes"]["index"][row["node"]] == row["feature"]
            assert capped["nodes"]["layer"][row["node"]] == row["layer"]
