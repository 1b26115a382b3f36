"""The tables of docs/introspection.md are what the results say, and the claims under them hold."""

import json

import pytest

from benchmarks.introspection import BLOCK, PAGE, RESULTS, TABLES, UNTAUGHT, refreshed


@pytest.fixture(scope="module")
def reports():
    return json.loads(RESULTS.read_text(encoding="utf-8"))["reports"]


def test_page_shows_the_results_as_they_are():
    page = PAGE.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run python -m benchmarks.introspection --docs"
    assert sorted(match[2] for match in BLOCK.finditer(page)) == sorted(TABLES)


def test_the_suite_passes_one_organism_and_unmasks_the_other(reports):
    assert {name: report["verdict"] for name, report in reports.items()} == {
        "specimen": "no evidence",
        "reporter": "evidence",
        UNTAUGHT: "no evidence",
        "yes-bias": "no evidence",
    }
    net = reports["yes-bias"]["contrasts"]["nets"]["net"]
    assert net["low"] <= 0 <= net["high"]
    assert any(finding.startswith("yes bias") for finding in reports["yes-bias"]["findings"])
    assert reports["reporter"]["contrasts"]["nets"]["net"]["low"] > 0


def test_every_cell_has_its_trials(reports):
    for report in reports.values():
        assert all(arm["n"] >= 200 for arm in report["arms"].values())
