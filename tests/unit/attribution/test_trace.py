"""Whole traces: the selection, the graph and the causal check agree with independent accounts."""

import dataclasses

import numpy as np
import pytest
import torch

from pellucid.attribution.checks import causal, measure
from pellucid.attribution.checks.causal import predicted_effects
from pellucid.attribution.trace import trace
from pellucid.core.errors import ConfigError, DictionaryError, PromptError
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]


@pytest.fixture(scope="module")
def llama():
    model = load_model(tiny_model("llama"), word_tokenizer())
    return model, tiny_transcoders(model, skip=True)


@pytest.fixture(scope="module")
def whole(llama):
    model, dictionaries = llama
    return trace(model, PROMPT, dictionaries, causal=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_check_and_the_row_sums_are_exact(family):
    model = load_model(tiny_model(family), word_tokenizer())
    graph = trace(model, PROMPT, tiny_transcoders(model, skip=True), max_features=20)
    assert graph.row_sum_max_error <= 1e-4
    assert graph.causal["frozen_max_error"] <= 1e-4
    assert graph.causal["n"] == len(graph.causal["rows"]) == 40
    by_depth = [record["frozen_max_error"] for record in graph.causal["by_depth"]]
    assert max(error for error in by_depth if error is not None) <= 1e-4
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_nodes_are_what_the_model_computed(whole, llama):
    model, _ = llama
    nodes = whole.nodes
    counts = nodes.counts()
    positions = len(PROMPT) + 1
    assert counts["token"] == positions
    assert counts["error"] == model.n_layers * (positions - 1), "BOS has no error node"
    assert counts["feature"] == whole.metadata["active_features"]
    logit = nodes.is_kind(LOGIT)
    probabilities = model.logits(model.encode_ids(PROMPT)[None])[0, -1].softmax(-1)
    np.testing.assert_allclose(
        nodes.probability[logit], probabilities[nodes.index[logit]], rtol=1e-5
    )
    assert nodes.probability[logit].sum() >= 0.95 or logit.sum() == 10
    assert (np.diff(nodes.probability[logit]) <= 0).all()


def test_rows_of_the_whole_graph_sum_to_their_targets(whole):
    targets = ~np.isnan(whole.target_values)
    assert np.array_equal(targets, whole.nodes.is_kind(FEATURE, LOGIT))
    np.testing.assert_allclose(
        whole.row_sums()[targets], whole.target_values[targets], rtol=1e-3, atol=1e-4
    )
    features = whole.nodes.is_kind(FEATURE)
    np.testing.assert_allclose(
        whole.target_values[features], whole.nodes.activation[features], rtol=1e-5
    )


def test_a_cap_keeps_the_most_influential_features(llama, whole):
    model, dictionaries = llama
    unexplored = []
    for cap in (1, 5, 10, 1000):
        graph = trace(model, PROMPT, dictionaries, max_features=cap, causal=False)
        kept = graph.metadata["selected_features"]
        assert kept == min(cap, whole.metadata["active_features"])
        unexplored.append(graph.metadata["unexplored_influence"])
    assert unexplored == sorted(unexplored, reverse=True)
    assert unexplored[-1] == 0.0
    # A capped graph's edges are edges of the whole graph.
    small = trace(model, PROMPT, dictionaries, max_features=5, causal=False)
    names = {name(whole, node): node for node in range(len(whole.nodes))}
    dense = np.zeros((len(whole.nodes), len(whole.nodes)))
    dense[whole.edges.target, whole.edges.source] = whole.edges.weight
    for target, source, weight in zip(
        small.edges.target, small.edges.source, small.edges.weight, strict=True
    ):
        same = dense[names[name(small, target)], names[name(small, source)]]
        assert weight == pytest.approx(same, rel=1e-4, abs=1e-6)


def name(graph, node):
    nodes = graph.nodes
    key = (nodes.kind[node], nodes.layer[node], nodes.position[node], nodes.index[node])
    return (*map(int, key), nodes.label[node] if nodes.kind[node] == BIAS else "")


def test_epsilon_stops_early_and_reports_what_is_left(llama):
    model, dictionaries = llama
    graph = trace(model, PROMPT, dictionaries, epsilon=0.9, causal=False)
    assert graph.metadata["selected_features"] < graph.metadata["active_features"]
    assert 0 < graph.metadata["unexplored_influence"] <= 0.9


def test_total_effects_equal_a_dense_inverse(whole):
    nodes, size = whole.nodes, len(whole.nodes)
    dense = np.zeros((size, size))
    dense[whole.edges.target, whole.edges.source] = whole.edges.weight
    relative = np.zeros((size, size))
    features = np.flatnonzero(nodes.is_kind(FEATURE))
    relative[features] = dense[features] / nodes.activation[features, None]
    logits = np.flatnonzero(nodes.is_kind(LOGIT))
    direct, total = predicted_effects(whole, logits, features)
    inverse = np.linalg.inv(np.eye(size) - relative)
    np.testing.assert_allclose(direct, dense[np.ix_(logits, features)], rtol=1e-6)
    np.testing.assert_allclose(total, (dense[logits] @ inverse)[:, features], rtol=1e-6, atol=1e-9)


def test_the_frozen_check_notices_a_wrong_edge(llama, monkeypatch):
    model, dictionaries = llama
    real = causal.predicted_effects

    def wrong(*arguments):
        direct, total = real(*arguments)
        direct[0, 0] += 0.01 * np.abs(direct).max()
        return direct, total

    monkeypatch.setattr(causal, "predicted_effects", wrong)
    assert trace(model, PROMPT, dictionaries).causal["frozen_max_error"] > 1e-3


def test_the_frozen_check_notices_an_unfrozen_norm(llama, monkeypatch):
    model, dictionaries = llama
    monkeypatch.setattr(measure, "norm_taps", lambda run: [])
    assert trace(model, PROMPT, dictionaries).causal["frozen_max_error"] > 1e-3


def test_the_random_control_is_matched(llama, monkeypatch):
    model, dictionaries = llama
    seen = []
    real = causal.probed_effects

    def spy(local, deltas, probes, freedom):
        seen.append((freedom, deltas))
        return real(local, deltas, probes, freedom)

    monkeypatch.setattr(causal, "probed_effects", spy)
    trace(model, PROMPT, dictionaries)
    top, control = seen[0][1], seen[-1][1]
    assert top.sites == control.sites
    assert torch.equal(top.positions, control.positions)
    torch.testing.assert_close(top.vectors.norm(dim=1), control.vectors.norm(dim=1))
    cosine = torch.cosine_similarity(top.vectors, control.vectors).abs()
    assert (cosine < 0.999).all()


def test_the_same_seed_gives_the_same_graph(llama):
    model, dictionaries = llama
    first, second = (trace(model, PROMPT, dictionaries, max_features=9) for _ in range(2))
    assert first.causal == second.causal
    assert np.array_equal(first.edges.weight, second.edges.weight)
    other = trace(model, PROMPT, dictionaries, max_features=9, seed=1)
    assert other.causal["spearman_random"] != first.causal["spearman_random"]
    assert dataclasses.asdict(other.edges)["weight"].tolist() == first.edges.weight.tolist()


def test_influence_flows_from_logits_to_inputs_without_loss(whole):
    reached = influence(whole)
    ends = whole.nodes.is_kind(TOKEN, ERROR)
    start = whole.nodes.probability.sum()
    assert reached[ends].sum() == pytest.approx(start, rel=1e-4)


def test_a_prompt_may_be_text(llama):
    model, dictionaries = llama
    graph = trace(model, "w11 w42 w7", dictionaries)
    assert graph.prompt == "w11 w42 w7"
    assert graph.tokens == ["<bos>", "w11", "w42", "w7"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_features": 0}, "max_features is 0"),
        ({"max_logits": 0}, "max_logits is 0"),
        ({"probability_mass": 1.5}, "probability_mass is 1.5"),
        ({"epsilon": -0.1}, "epsilon is -0.1"),
    ],
)
def test_limits_out_of_range_are_refused(llama, arguments, message):
    model, dictionaries = llama
    with pytest.raises(ConfigError, match=message):
        trace(model, PROMPT, dictionaries, **arguments)


def test_bad_prompts_and_dictionaries_are_refused(llama):
    model, dictionaries = llama
    with pytest.raises(PromptError):
        trace(model, "", dictionaries)
    with pytest.raises(PromptError):
        trace(model, [5] * 1000, dictionaries)
    other = load_model(tiny_model("llama", hidden_size=48), word_tokenizer())
    with pytest.raises(DictionaryError):
        trace(other, PROMPT, dictionaries)
