"""The verbs on sound input: what they print, write and return."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pellucid as package
from pellucid import cli
from pellucid.graphs.graph import AttributionGraph
from unit.cli.conftest import Command, Outcome, Workshop

FIDELITY_KEYS = {"layer", "fvu", "l0", "dead", "dense", "density"}
CAUSAL_KEYS = {
    "frozen_max_error",
    "spearman_attention_frozen",
    "spearman_real",
    "spearman_random",
}


def record(outcome: Outcome) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_version(pellucid: Command) -> None:
    outcome = pellucid("--version")
    assert (outcome.code, outcome.out) == (0, f"pellucid {package.__version__}\n")


def test_help_lists_the_verbs_of_this_release_and_no_other(pellucid: Command) -> None:
    outcome = pellucid("--help")
    assert outcome.code == 0
    listed = outcome.out.split("Commands:")[1]
    verbs = re.findall(r"^  (\S+)", listed, flags=re.MULTILINE)
    expected = (
        "demo plan train sweep eval convert trace intervene steer patch probe introspect safety"
    )
    expected += " verify specimen"
    assert " ".join(verbs) == expected


def test_train_eval_trace(pellucid: Command, workshop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = record(
        pellucid(
            *("train", workshop.model, "--data", workshop.text, "--out", run),
            *("--tokens", "4k", "--features", 96, "--k", 4, "--batch-tokens", 256, "--json"),
            *("--measure-every", "2k"),
        )
    )
    assert {"out", "tokens", "tokens_per_second", "layers"} <= set(trained)
    assert trained["out"] == str(run)
    assert [set(layer) for layer in trained["layers"]] == [FIDELITY_KEYS] * 3
    assert (run / "metrics.jsonl").read_text().count('"measured"') == 2

    evaluated = record(
        pellucid(
            *("eval", workshop.model, "--dictionaries", run, "--data", workshop.text),
            *("--tokens", 300, "--json", "--plot", tmp_path / "density.svg"),
        )
    )
    assert [set(layer) for layer in evaluated["layers"]] == [FIDELITY_KEYS | {"duplicates"}] * 3
    assert "<svg" in (tmp_path / "density.svg").read_text()
    assert set(evaluated["baselines"]) == {"zero", "mean", "linear", "random"}
    for prediction in (evaluated["replacement"]["all"], *evaluated["replacement"]["per_layer"]):
        assert {"ce", "kl", "top1", "loss_recovered"} <= set(prediction)
    assert len(evaluated["replacement"]["cumulative"]) == 3
    assert evaluated["original"]["ce"] > 0

    out, page = tmp_path / "graph", tmp_path / "page.html"
    traced = record(
        pellucid(
            *("trace", workshop.model, "w5 w6 w7 w8", "--dictionaries", run, "--out", out),
            *("--html", page, "--json"),
        )
    )
    graph = AttributionGraph.load(out)
    assert traced["files"] == {"graph": str(out), "html": str(page)}
    assert traced["nodes"] == graph.nodes.counts()
    assert set(traced["nodes"]) == {"feature", "error", "token", "logit", "bias"}
    assert traced["edges"] == len(graph.edges)
    assert traced["scores"] == graph.scores
    assert set(traced["causal"]) >= CAUSAL_KEYS
    assert "rows" not in traced["causal"]
    assert traced["row_sum_max_error"] < 1e-3
    assert traced["seconds"] > 0
    assert traced["peak_mb"] > 10
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_trace_with_the_attention_behind_it(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    arguments = (
        *("trace", workshop.model, "--prompt-ids", "5,6,7", "--no-causal", "--attention"),
        *("--dictionaries", workshop.dictionaries, "--out", tmp_path / "graph.safetensors"),
    )
    attention = record(pellucid(*arguments, "--json"))["attention"]
    assert attention["max_error"] <= 1e-4
    assert {"layer", "head", "share", "query", "key"} <= set(attention["heads"][0])
    assert {"spearman_real", "spearman_random"} <= set(attention["check"])
    said = pellucid(*arguments).out
    assert "passes no attention head" in " ".join(said.split())
    assert f"layer {attention['heads'][0]['layer']} head" in " ".join(said.split())


def test_trace_of_ids_in_the_other_format(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    out = tmp_path / "graph.json"
    traced = record(
        pellucid(
            *("trace", workshop.model, "--prompt-ids", "5,6,7", "--no-causal", "--json"),
            *("--dictionaries", workshop.dictionaries, "--out", out, "--format", "neuronpedia"),
        )
    )
    assert traced["files"] == {"json": str(out)}
    assert traced["causal"] is None
    written = json.loads(out.read_text(encoding="utf-8"))
    assert set(written) == {"metadata", "qParams", "nodes", "links", "pellucid"}


def test_the_same_figures_with_and_without_json(pellucid: Command, workshop: Workshop) -> None:
    arguments = (
        *("eval", workshop.model, "--dictionaries", workshop.dictionaries),
        *("--data", workshop.text, "--tokens", 200, "--no-layerwise"),
    )
    figures = record(pellucid(*arguments, "--json"))
    shown = pellucid(*arguments, "--quiet")
    assert shown.err == ""
    assert f"{figures['layers'][0]['fvu']:.4f}" in shown.out
    assert f"{figures['baselines']['linear']['ce']:.4f}" in shown.out


def test_samples_of_the_corpus_carry_a_label_a_token(pellucid: Command) -> None:
    documents = record(pellucid("specimen", "sample", "--count", 3, "--json"))["documents"]
    assert len(documents) == 3
    for document in documents:
        assert len(document["tokens"]) == len(document["labels"])
    again = record(pellucid("specimen", "sample", "--count", 3, "--json"))["documents"]
    other = record(pellucid("specimen", "sample", "--count", 3, "--json", "--seed", 1))["documents"]
    assert again == documents != other


def test_labels_name_their_concepts(pellucid: Command) -> None:
    labels = record(pellucid("specimen", "labels", "--task", "facts", "--count", 200, "--json"))[
        "labels"
    ]
    by_role = {row["role"]: row for row in labels}
    assert "dallas" in by_role["place"]["concepts"]
    assert all(row["task"] == "facts" for row in labels)


# Failures that are not the user's


def test_a_defect_of_ours_is_one_line_and_exit_code_1(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(cli, "build", broken)
    outcome = pellucid("demo")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "ZeroDivisionError: two lines" in outcome.err
    assert "PELLUCID_DEBUG=1" in outcome.err

    monkeypatch.setenv("PELLUCID_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        pellucid("demo")


def test_an_interrupt_is_one_line_and_its_own_exit_code(
    pellucid: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pellucid.specimen.mixture.sample_documents", interrupted)
    outcome = pellucid("specimen", "sample")
    assert (outcome.code, outcome.err) == (130, "error: interrupted\n")
