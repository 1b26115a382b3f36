from dataclasses import replace
from typing import Any

import pytest

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.trust import trust_statements, verdict
from support.graphs import causal_record, random_graph


def checked(replacement: float | None = 0.9, **changes: Any) -> AttributionGraph:
    graph = random_graph(0)
    scores = {} if replacement is None else {"replacement": replacement, "completeness": 0.95}
    causal = causal_record(graph) | changes
    return replace(graph, causal=causal, scores=scores, row_sum_max_error=1e-6)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, "Well supported"),
        ({"frozen_max_error": 0.01}, "Do not trust"),
        ({"frozen_max_error": None}, "Do not trust"),
        ({"spearman_real": 0.6}, "Partly supported"),
        ({"replacement": 0.4}, "Partly supported"),
        ({"replacement": None}, "Partly supported"),
        ({"spearman_real": 0.2}, "Weakly supported"),
        ({"spearman_real": None}, "Weakly supported"),
        ({"spearman_random": 0.95}, "Weakly supported"),
        ({"spearman_random": -0.95}, "Weakly supported"),
    ],
)
def test_the_verdict_is_that_of_the_weakest_evidence(changes: dict[str, Any], value: str) -> None:
    assert verdict(checked(**changes)).value == value


def test_a_graph_without_a_check_is_a_hypothesis() -> None:
    graph = random_graph(0)
    assert verdict(graph).value == "Not checked"
    first = trust_statements(graph)[0]
    assert (first.heading, first.value, first.level) == ("Causal check", "not run", "unknown")


def test_figures_and_the_control_are_stated_side_by_side() -> None:
    statements = {statement.heading: statement for statement in trust_statements(checked())}
    assert statements["In the real model"].value == "0.93 [0.81, 0.98]"
    assert statements["Random features, for comparison"].value == "0.04 [-0.20, 0.30]"
    assert "4.2 times" in statements["Random features, for comparison"].text
    assert statements["Replacement score"].value == "90%"
    assert "other 10%" in statements["Replacement score"].text


def test_effects_on_the_way_and_the_cost_of_frozen_norms_stand_beside_random_features() -> None:
    statements = {statement.heading: statement for statement in trust_statements(checked())}
    on_the_way = statements["On features on the way"]
    assert on_the_way.value == "0.85 [0.70, 0.95]"
    assert "random features give 0.10 [-0.20, 0.30]" in on_the_way.text
    norms = statements["If norms could answer"]
    assert "not the graph's own" in norms.text
    assert "random features 0.10" in norms.text


def test_a_capped_graph_states_and_is_judged_by_the_bounds_of_the_whole() -> None:
    bounds = {"replacement_low": 0.4, "replacement_high": 0.7}
    graph = checked()
    graph = replace(graph, scores=graph.scores | bounds)
    statements = {statement.heading: statement for statement in trust_statements(graph)}
    assert statements["Replacement score"].value == "90% (whole graph: 40% to 70%)"
    assert statements["Completeness score"].value == "95%"
    assert verdict(graph).value == "Partly supported"


def test_missing_figures_are_said_to_be_unknown() -> None:
    statements = trust_statements(replace(random_graph(0), causal={"rows": []}))
    assert {statement.value for statement in statements} == {"unknown"}
    assert {statement.level for statement in statements} == {"unknown"}
