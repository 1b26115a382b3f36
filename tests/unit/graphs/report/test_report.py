"""The report: every figure beside its control, honest levels, data that cannot become HTML."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.report import Evidence, report_payload, to_report
from pellucid.graphs.report.blocks import level_of, with_interval
from pellucid.graphs.report.shape import shape
from pellucid.graphs.scores import scores
from pellucid.graphs.tables import FEATURE, LOGIT, TOKEN, Edges, NodeTable
from support.graphs import causal_record, group_check_record, random_graph

BOUNDS = {"replacement_low": 0.41, "replacement_high": 0.66}


def checked(seed: int = 0, **changes: Any) -> AttributionGraph:
    graph = random_graph(seed)
    known = {
        "scores": scores(graph)._asdict() | BOUNDS,
        "causal": causal_record(graph),
        "row_sum_max_error": 3e-6,
        "metadata": {
            "model": "tiny",
            "dictionaries": "set one",
            "unexplored_influence": 0.25,
            "supernode_checks": [group_check_record(), group_check_record(accepted=False)],
        },
    }
    return replace(graph, **(known | changes))


def sections(evidence: Evidence) -> dict[str, dict[str, Any]]:
    return {section["title"]: section for section in report_payload(evidence)["sections"]}


def checks(evidence: Evidence) -> dict[str, dict[str, Any]]:
    return {c["heading"]: c for s in sections(evidence).values() for c in s["checks"]}


def test_every_check_has_its_control_beside_it() -> None:
    evidence = Evidence(
        graph=checked(),
        paraphrases=(checked(1), checked(2)),
        compared={"neurons": checked(3, metadata={"dictionaries": "neurons"})},
    )
    found = checks(evidence)
    assert list(found) == [
        "Rows add up",
        "Arithmetic, by intervention",
        "Effects on the answer, real model",
        "Effects on features on the way, real model",
        "What frozen norms cost",
        "Groups that act as predicted",
        "Same circuit in other words",
        "Replacement, whole graph",
        "Same places with neurons",
    ]
    for check in found.values():
        assert check["value"] not in ("", "unknown")
        assert check["control"] not in ("", "unknown")
    assert found["Effects on the answer, real model"]["value"] == "0.93 [0.81, 0.98]"
    assert found["Effects on the answer, real model"]["control"] == (
        "random features 0.04 [-0.20, 0.30]"
    )
    assert found["Groups that act as predicted"]["value"] == "1 of 2"
    assert found["Replacement, whole graph"]["value"] == "41% to 66%"
    assert found["Replacement, whole graph"]["level"] == "poor"


def test_plots_show_the_rows_and_their_random_control() -> None:
    graph = checked()
    plots = sections(Evidence(graph=graph))["Do its features act as it says?"]["scatters"]
    rows = graph.causal["rows"]  # type: ignore[index]
    assert [plot["control"] for plot in plots] == [False, False, False, True, False, True]
    assert all(len(plot["points"]) == len(rows) for plot in plots)
    assert plots[2]["points"][0] == pytest.approx(
        [rows[0]["predicted_total"], rows[0]["real"]], rel=1e-3
    )
    deep = sections(Evidence(graph=graph))["At which depth does it hold?"]
    down = graph.causal["downstream"][0]  # type: ignore[index]
    assert deep["scatters"][0]["points"][0] == pytest.approx(
        [down["predicted_total"] / 2, down["real"] / 2], rel=1e-3
    )


def test_what_was_not_measured_is_said() -> None:
    plain = random_graph(0)
    found = sections(Evidence(graph=plain))
    assert "Does it stay the same?" in found
    assert "No paraphrases were given" in found["Does it stay the same?"]["notes"][0]
    assert "Do other dictionaries agree?" not in found
    assert "Do its groups act as one?" not in found
    assert "At which depth does it hold?" not in found
    by_heading = checks(Evidence(graph=plain))
    assert by_heading["Causal check"]["value"] == "not run"
    assert by_heading["Rows add up"]["level"] == "unknown"


def test_the_limits_name_errors_and_what_was_left_out() -> None:
    notes = sections(Evidence(graph=checked()))["What this graph does not show"]["notes"]
    assert notes[0].startswith("What errors carry: up to 59%")
    assert notes[1].startswith("What was left out: 25%")
    whole = checked(metadata={"unexplored_influence": 0.0})
    notes = sections(Evidence(graph=whole))["What this graph does not show"]["notes"]
    assert not any("left out" in note for note in notes)


def test_provenance_names_model_dictionaries_settings_and_versions() -> None:
    settings = {"max_features": 7, "seed": 3}
    payload = report_payload(Evidence(graph=checked(), settings=settings))
    rows = dict(payload["provenance"]["rows"])
    assert rows["model"] == "tiny"
    assert rows["dictionaries"] == "set one"
    assert (rows["max features"], rows["seed"]) == ("7", "3")
    assert "torch" in rows["versions"]
    assert rows["edges"] == str(len(checked().edges))


def test_the_page_asks_for_nothing_and_holds_text_as_data_alone() -> None:
    evil = '</script><img src=x onerror="alert(1)">\u2028'
    graph = checked(prompt=evil, metadata={"model": evil, evil: "x"})
    graph = replace(graph, nodes=replace(graph.nodes, label=[evil] * len(graph.nodes)))
    page = to_report(Evidence(graph=graph, compared={evil: checked(1)}, settings={"x": evil}))
    assert "<img" not in page
    assert "\u2028" not in page
    assert page.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["prompt"] == evil
    assert not re.search(r'(src|href)="(?!data:)', page.split('id="data"')[0].split("</style>")[1])
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("value", "control", "level"),
    [
        (0.9, 0.1, "good"),
        (0.6, 0.1, "fair"),
        (0.3, 0.1, "poor"),
        (0.9, 0.95, "poor"),
        (0.9, -0.95, "poor"),
        (None, 0.0, "unknown"),
        (0.9, None, "unknown"),
    ],
)
def test_a_figure_not_above_its_control_is_poor(
    value: float | None, control: float | None, level: str
) -> None:
    assert level_of(value, control) == level


def test_figures_as_text() -> None:
    assert with_interval(None, 0.0, 1.0) == "unknown"
    assert with_interval(0.5, None, None) == "0.50"
    assert with_interval(0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"


def chain(layers: list[int]) -> AttributionGraph:
    """A token that feeds a feature of each of these layers in a row, and the last the logit."""
    count, n_layers = len(layers), 4
    kind = [FEATURE] * count + [TOKEN, LOGIT]
    nodes = NodeTable(
        kind=np.array(kind),
        layer=np.array([*layers, -1, n_layers]),
        position=np.zeros(count + 2, dtype=int),
        index=np.arange(count + 2),
        activation=np.ones(count + 2),
        probability=np.array([0.0] * (count + 1) + [0.5]),
        label=[""] * (count + 2),
    )
    order = [count, *range(count), count + 1]
    pairs = list(zip(order[1:], order[:-1], strict=True))
    edges = Edges.from_unsorted(
        target=[target for target, _ in pairs],
        source=[source for _, source in pairs],
        weight=np.ones(len(pairs)),
    )
    return AttributionGraph(
        nodes=nodes,
        edges=edges,
        tokens=["a"],
        prompt="a",
        n_layers=n_layers,
        target_values=np.ones(count + 2),
    )


def test_steps_count_the_features_on_the_way() -> None:
    assert shape(chain([0, 1, 2, 3])).steps == pytest.approx(4)
    assert shape(chain([0, 3])).steps == pytest.approx(2)
    assert shape(chain([0, 3])).depth == pytest.approx(0.5)
    assert shape(chain([1])).by_layer == pytest.approx([0, 1, 0, 0])
    assert shape(chain([])).steps == 0
