"""The verbs on the packaged model: the demo, and the figures the shipped weights must keep."""

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.cli import demo
from pellucid.graphs.graph import AttributionGraph
from pellucid.specimen.tasks import task_accuracy
from unit.cli.conftest import Command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on fewer tokens."""
    monkeypatch.setattr(demo, "FIDELITY_TOKENS", 600)
    monkeypatch.setattr(demo, "MEANING_TOKENS", 12_000)


def demonstrate(pellucid: Command, *arguments: object) -> dict[str, Any]:
    outcome = pellucid("demo", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.usefixtures("quick")
def test_the_demo_traces_a_two_hop_fact_through_its_hidden_state(
    pellucid: Command, tmp_path: Path
) -> None:
    record = demonstrate(pellucid, "--out", tmp_path / "out")
    assert record["answer"]["token"] == "austin"
    assert record["answer"]["probability"] > 0.95
    assert record["unwritten"][0]["value"] == "texas"
    assert set(record["files"]) == {"graph", "json", "html"}
    assert all(Path(path).stat().st_size > 1000 for path in record["files"].values())
    graph = AttributionGraph.load(record["files"]["graph"])
    assert any(label.startswith("texas, unwritten") for label in graph.nodes.label)
    assert record["scores"] == graph.scores
    assert record["causal"]["frozen_max_error"] <= 1e-4
    assert record["row_sum_max_error"] <= 1e-4
    assert {"layers", "replacement", "baselines", "original"} <= set(record["fidelity"])
    assert record["seconds"] > 0


@pytest.mark.usefixtures("quick")
def test_the_demo_in_words(pellucid: Command, tmp_path: Path) -> None:
    outcome = pellucid("demo", "--prompt", "( 3 + 4 ) =", "--out", tmp_path / "out", "--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    text = " ".join(outcome.out.split())
    assert "the model says '7'" in text
    assert "How far to trust this graph" in text
    assert str(tmp_path / "out" / "graph.html") in outcome.out.replace("\n", "")


def test_a_prompt_that_the_specimen_cannot_read(pellucid: Command, tmp_path: Path) -> None:
    outcome = pellucid("demo", "--prompt", "Hello world", "--out", tmp_path, "--quiet")
    assert outcome.code == 2
    assert "Hello" in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_shipped_transcoders_stand_in_for_the_model(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(task_accuracy.__kwdefaults__, "count", 48)
    outcome = pellucid("eval", "specimen", "--tokens", "12k", "--no-layerwise", "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    for layer in record["layers"]:
        assert layer["l0"] <= 12
        assert layer["dead"] <= 0.1
    whole = record["replacement"]["all"]
    assert whole["loss_recovered"] >= 0.995
    assert whole["top1"] >= 0.96
    assert whole["kl"] <= 0.025
    for name in ("linear", "random"):
        assert record["baselines"][name]["loss_recovered"] < 0.9
    for name, floor in (("one_hop", 0.99), ("two_hop_heldout", 0.9), ("boolean_step", 0.97)):
        assert record["tasks"][name]["original"] >= floor
        assert record["tasks"][name]["replaced"] >= floor - 0.05
