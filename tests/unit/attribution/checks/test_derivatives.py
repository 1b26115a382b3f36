"""First-order predictions against the hand-written sweep and against tiny real interventions."""

from functools import cache

import numpy as np
import pytest
import torch

from pellucid.attribution.checks.derivatives import first_order_effects, linear_taps
from pellucid.attribution.checks.interventions import (
    feature_deltas,
    feature_probe,
    target_probe,
    targets_of,
)
from pellucid.attribution.checks.measure import Deltas, probed_effects
from pellucid.attribution.checks.predict import predicted_effects
from pellucid.attribution.trace import Trace
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.load import load_model
from pellucid.replacement.freeze import attention_taps
from support.tiny_dictionaries import BASES, tiny_basis
from support.tiny_models import tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
SMALL = 0.02
"""Small enough for the cubic term, large enough for norms that compute in float32."""


def close(found, up, down):
    expected = (up - down) / (2 * SMALL)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=2e-3 * float(expected.abs().max()))


@cache
def setting(family, basis="skip", dtype=torch.float32):
    """A whole graph, everything in it as source and some of it as target."""
    model = load_model(tiny_model(family), word_tokenizer(), dtype=dtype)
    dictionaries, missing = tiny_basis(model, basis)
    whole = Trace(model, PROMPT, dictionaries, missing=missing)
    graph, linear = whole.graph(), whole.linear
    features = np.flatnonzero(graph.nodes.is_kind(FEATURE))[:150]
    logits = np.flatnonzero(graph.nodes.is_kind(LOGIT))
    targets = targets_of(graph, features) if len(features) else features
    probes = [target_probe(linear, graph, node, number) for number, node in enumerate(logits)]
    nodes = graph.nodes
    probes += [
        feature_probe(linear, int(nodes.layer[n]), int(nodes.position[n]), int(nodes.index[n]))
        for n in targets
    ]
    deltas = feature_deltas(linear, graph, features)
    return graph, linear, features, np.concatenate([logits, targets]), probes, deltas


@pytest.mark.parametrize(
    ("family", "basis"),
    [("llama", basis) for basis in BASES if basis not in ("gates", "error")]
    + [("gemma2", "skip"), ("gemma2", "neurons"), ("gpt_neox", "skip"), ("gpt2", "mixed")],
)
def test_with_features_alone_answering_it_is_the_sum_over_the_graphs_paths(family, basis):
    graph, linear, features, targets, probes, deltas = setting(family, basis)
    assert len(targets) > graph.nodes.is_kind(LOGIT).sum()
    _, total = predicted_effects(graph, targets, features)
    found = first_order_effects(linear.local, deltas, probes, "features").numpy()
    np.testing.assert_allclose(found, total.T, atol=5e-5 * np.abs(total).max(), rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "basis"), [("llama", "clt"), ("gemma2", "skip"), ("gpt2", "sae")]
)
@pytest.mark.parametrize(
    ("answer", "freedom"), [("mlps", "attention_frozen"), ("attention", "real")]
)
def test_it_is_the_limit_of_small_interventions(family, basis, answer, freedom):
    _, linear, _, _, probes, deltas = setting(family, basis, torch.float64)
    found = first_order_effects(linear.local, deltas, probes, answer)
    up, down = (
        probed_effects(linear.local, deltas.scaled(sign * SMALL), probes, freedom)
        for sign in (1, -1)
    )
    close(found, up, down)


@pytest.mark.parametrize("basis", ["skip", "mixed"])
def test_with_norms_it_is_the_limit_with_linear_features(basis, monkeypatch):
    _, linear, _, _, probes, deltas = setting("llama", basis, torch.float64)
    local = linear.local
    found = first_order_effects(local, deltas.part(0, 4), probes, "norms")
    answering = linear_taps(local)
    monkeypatch.setattr(
        "pellucid.attribution.checks.measure.attention_taps",
        lambda run: attention_taps(run) + answering,
    )
    for run in range(4):  # the linear features answer one run at a time
        one = deltas.part(run, run + 1)
        up, down = (
            probed_effects(local, one.scaled(sign * SMALL), probes, "attention_frozen")
            for sign in (1, -1)
        )
        close(found[run : run + 1], up, down)


def test_runs_of_several_changes_add_up_where_everything_is_frozen():
    _, linear, features, _, probes, deltas = setting("llama")
    single = probed_effects(linear.local, deltas, probes, "frozen")
    runs = torch.arange(len(features)) // 5
    joint = Deltas(
        sites=deltas.sites, positions=deltas.positions, vectors=deltas.vectors, runs=runs
    )
    found = probed_effects(linear.local, joint, probes, "frozen")
    expected = torch.zeros_like(found).index_add(0, runs, single)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    predicted = first_order_effects(linear.local, joint, probes, "norms")
    alone = first_order_effects(linear.local, deltas, probes, "norms")
    torch.testing.assert_close(predicted, torch.zeros_like(predicted).index_add(0, runs, alone))


def test_two_changes_at_one_place_are_both_made():
    _, linear, _, _, probes, deltas = setting("llama")
    one = deltas.part(0, 1)
    twice = Deltas(
        sites=one.sites * 2,
        positions=one.positions.repeat(2),
        vectors=one.vectors.repeat(2, 1) / 2,
        runs=torch.zeros(2, dtype=torch.long),
    )
    torch.testing.assert_close(
        probed_effects(linear.local, twice, probes, "real"),
        probed_effects(linear.local, one, probes, "real"),
    )


def test_a_probe_reads_the_same_whatever_else_is_read():
    _, linear, _, _, probes, deltas = setting("llama")
    alone = probed_effects(linear.local, deltas, probes[-1:], "real")
    together = probed_effects(linear.local, deltas, probes, "real")
    torch.testing.assert_close(together[:, -1:], alone)
