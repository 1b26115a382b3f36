"""What the causal check reports by depth: structure, matching and independence of other figures."""

import json

import numpy as np
import pytest
import torch

from pellucid.attribution.checks import causal
from pellucid.attribution.checks.agreement import spearman
from pellucid.attribution.checks.interventions import (
    bands,
    reaches,
    sources_of,
    targets_of,
    top_features,
)
from pellucid.attribution.explain import Direction, Feature, Logit, LogitDifference
from pellucid.attribution.trace import trace
from pellucid.core.types import Site
from pellucid.graphs.tables import FEATURE
from pellucid.models.load import load_model
from support.tiny_dictionaries import BASES, tiny_basis, tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]


@pytest.fixture(scope="module")
def graph():
    model = load_model(tiny_model("llama"), word_tokenizer())
    return trace(model, PROMPT, tiny_transcoders(model), causal_features=9)


def test_every_third_of_the_model_is_intervened_in(graph):
    sources, n_top = sources_of(graph, 9)
    assert np.array_equal(sources[:n_top], top_features(graph, 9))
    assert len(np.unique(sources)) == len(sources)
    assert (np.bincount(bands(graph, sources), minlength=3) >= 3).all()


def test_features_are_read_at_every_later_layer_by_influence(graph):
    sources, _ = sources_of(graph, 9)
    targets = targets_of(graph, sources)
    layers = graph.nodes.layer[targets]
    assert set(layers.tolist()) == {1, 2}
    assert (np.diff(layers) >= 0).all()
    for target in targets:
        assert reaches(graph, sources, target).sum() >= 3


def test_records_name_place_and_depth_and_count_what_they_pool(graph):
    records = graph.causal["by_depth"]
    places = {(record["target"], record["layer"], record["source_depth"]) for record in records}
    assert len(places) == len(records)
    assert {("features", 1, "all"), ("features", 2, "all"), ("logit", 3, "all")} <= places
    assert ("features", 1, "deep") not in places
    for record in records:
        assert record["features"] >= 3
        assert record["n"] >= 2 * record["features"]
        for name in ("attention_frozen", "real", "random", "norms", "norms_random"):
            assert -1 <= record[f"spearman_{name}"] <= 1
            low, high = record[f"spearman_{name}_interval"]
            assert low <= high
    json.dumps(graph.causal, allow_nan=False)


def test_the_records_agree_with_the_rows_they_pool(graph):
    (record,) = (
        r
        for r in graph.causal["by_depth"]
        if (r["target"], r["layer"], r["source_depth"]) == ("features", 2, "all")
    )
    rows = [row for row in graph.causal["downstream"] if row["target"]["layer"] == 2]
    assert len(rows) == record["n"]
    unit = np.array([row["value"] * (row["factor"] - 1) for row in rows])
    for name, predicted, measured in (
        ("real", "predicted_total", "real"),
        ("random", "predicted_total", "random_real"),
        ("norms", "predicted_norms", "real"),
    ):
        columns = [np.array([row[key] for row in rows]) / unit for key in (predicted, measured)]
        assert record[f"spearman_{name}"] == pytest.approx(
            spearman(*np.round(columns, 12)), abs=0.02
        )


def test_downstream_rows_are_edges_of_the_graph(graph):
    nodes = graph.nodes
    features = np.flatnonzero(nodes.is_kind(FEATURE))
    names = {
        (int(nodes.layer[n]), int(nodes.position[n]), int(nodes.index[n])): n for n in features
    }
    weight = dict(
        zip(
            zip(graph.edges.target.tolist(), graph.edges.source.tolist(), strict=True),
            graph.edges.weight.tolist(),
            strict=True,
        )
    )
    for row in graph.causal["downstream"]:
        target = row["target"]
        pair = (
            names[target["layer"], target["position"], target["feature"]],
            names[row["layer"], row["position"], row["feature"]],
        )
        expected = (row["factor"] - 1) * weight.get(pair, 0.0)
        assert row["predicted_direct"] == pytest.approx(expected)
        assert row["frozen"] == pytest.approx(expected, abs=1e-4)


def test_answers_go_from_the_graphs_own_to_the_real_models(graph):
    answers = [r["answer"] for r in graph.causal["answers"] if r["target"] == "contrast"]
    assert answers == ["features", "norms", "mlps", "attention"]
    by_answer = {r["answer"]: r for r in graph.causal["answers"] if r["target"] == "features"}
    ours, real = by_answer["features"], by_answer["attention"]
    assert real["spearman_real"] > ours["spearman_real"]
    assert abs(np.log(real["size_ratio"])) < abs(np.log(ours["size_ratio"]))


def test_the_first_figures_do_not_depend_on_the_features_added_for_depth(graph, monkeypatch):
    monkeypatch.setattr(causal, "sources_of", lambda g, n: (top_features(g, n), n))
    model = load_model(tiny_model("llama"), word_tokenizer())
    alone = trace(model, PROMPT, tiny_transcoders(model), causal_features=9).causal
    assert alone["n"] == graph.causal["n"] == 18
    for name in ("attention_frozen", "real"):
        key = f"spearman_{name}"
        assert alone[key] == pytest.approx(graph.causal[key])


@pytest.mark.parametrize("basis", [basis for basis in BASES if basis not in ("gates", "error")])
def test_edges_are_exact_under_the_full_freeze_in_every_basis(basis):
    model = load_model(tiny_model("llama"), word_tokenizer())
    dictionaries, missing = tiny_basis(model, basis)
    check = trace(model, PROMPT, dictionaries, missing=missing, causal_features=9).causal
    assert check["frozen_max_error"] <= 1e-4
    errors = [r["frozen_max_error"] for r in check["by_depth"] if r["target"] == "features"]
    assert errors
    assert max(errors) <= 1e-4


@pytest.mark.parametrize("basis", ["gates", "error"])
def test_without_features_there_is_nothing_to_check(basis):
    model = load_model(tiny_model("llama"), word_tokenizer())
    assert trace(model, PROMPT, None, missing=basis).causal is None


def test_other_targets_are_checked_where_they_are_read():
    model = load_model(tiny_model("llama"), word_tokenizer())
    dictionaries = tiny_transcoders(model)
    wanted = [LogitDifference(5, 9), Logit(5)]
    check = trace(model, PROMPT, dictionaries, targets=wanted, causal_features=6).causal
    assert check["frozen_max_error"] <= 1e-4
    assert {record["target"] for record in check["by_depth"]} == {"logit", "features"}
    nodes = trace(model, PROMPT, dictionaries, causal=False).nodes
    inner = np.flatnonzero(nodes.is_kind(FEATURE) & (nodes.layer == 2) & (nodes.position == 5))
    feature = Feature(layer=2, feature=int(nodes.index[inner[0]]))
    check = trace(model, PROMPT, dictionaries, targets=[feature], causal_features=6).causal
    assert check["frozen_max_error"] <= 1e-4
    direction = Direction(Site("resid_post", 1), torch.ones(model.d_model))
    assert trace(model, PROMPT, dictionaries, targets=[direction]).causal is None
