"""The causal check of QK attributions is exact where it must be, and has a matched control."""

import dataclasses

import numpy as np
import pytest
import torch

from pellucid.attribution.attention import qk_check
from pellucid.attribution.attention.layer_scores import layer_scores
from pellucid.attribution.attention.qk import qk_attribution
from pellucid.attribution.attention.qk_check import check_qk
from pellucid.attribution.checks.causal import spearman
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import linearise
from pellucid.models.load import load_model
from pellucid.replacement.local import local_replacement
from support.tiny_dictionaries import BASES, tiny_basis
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
CASES = [(family, "skip") for family in FAMILIES]
CASES += [("gemma2", basis) for basis in BASES if basis not in ("skip", "gates", "error")]


def attributed(family, basis="skip", layer=2):
    model = load_model(tiny_model(family), word_tokenizer())
    dictionaries, missing = tiny_basis(model, basis)
    linear = linearise(local_replacement(model, model.encode_ids(PROMPT), dictionaries, missing))
    scores = layer_scores(linear, layer)
    table = SourceTable(linear)
    attribution = qk_attribution(linear, table, layer, 0, 5, 3, contrast=True, scores=scores)
    return linear, scores, attribution


@pytest.mark.parametrize(("family", "basis"), CASES)
def test_under_the_full_freeze_the_prediction_is_exact(family, basis):
    linear, scores, attribution = attributed(family, basis)
    record = check_qk(linear, scores, attribution)
    assert record["frozen_max_error"] <= 1e-4
    assert record["n"] == len(record["rows"]) >= 3
    sizes = [abs(row["predicted"]) for row in record["rows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row["source"]["kind"] == "feature" for row in record["rows"])
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in linear.local.run.model.module.modules()
    )


def test_what_the_real_model_does_is_what_a_run_of_it_shows():
    linear, scores, attribution = attributed("llama")
    row = check_qk(linear, scores, attribution, sources=1)["rows"][0]
    model, source = linear.local.run.model, row["source"]
    active = linear.local.layers[source["layer"]].active
    vector = active.dictionary.W_dec[source["index"]]
    here = (active.positions == source["position"]) & (active.features == source["index"])
    mlp = model.module.model.layers[source["layer"]].mlp

    def remove(_module, _args, output):
        output[:, source["position"]] -= vector * active.activations[here]
        return output

    handle = mlp.register_forward_hook(remove)
    patterns = model.module(input_ids=linear.local.run.ids[None], output_attentions=True).attentions
    handle.remove()
    change = float(patterns[2][0, 0, 5, 3]) - attribution.probability
    assert row["probability_change"] == pytest.approx(change, abs=1e-6)
    seen = patterns[2][0, 0, 5].log()
    before = scores.pattern[0, 5].log()
    others = scores.others(0, 5, 3)
    shift = (seen[3] - seen[others].mean()) - (before[3] - before[others].mean())
    assert row["real"] == pytest.approx(float(shift), abs=1e-5)


def test_a_wrong_contribution_is_noticed():
    linear, scores, attribution = attributed("llama")
    wrong = attribution.query_vectors.clone()
    top = check_qk(linear, scores, attribution, sources=1)["rows"][0]["source"]
    names = attribution.names
    number = next(i for i in range(len(names)) if names.describe(i) == top)
    wrong[number] *= 1.05
    changed = dataclasses.replace(attribution, query_vectors=wrong)
    assert check_qk(linear, scores, changed)["frozen_max_error"] > 1e-3


def test_the_random_control_is_matched(monkeypatch):
    linear, scores, attribution = attributed("llama")
    seen = []
    real = qk_check._read

    def spy(*arguments):
        seen.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(qk_check, "_read", spy)
    first = check_qk(linear, scores, attribution)
    removals, _, controls = seen
    for (position, removed), (other_position, control) in zip(removals, controls, strict=True):
        assert position == other_position
        assert [write.site for write in removed] == [write.site for write in control]
        for a, b in zip(removed, control, strict=True):
            torch.testing.assert_close(a.vector.norm(), b.vector.norm())
            assert torch.cosine_similarity(a.vector, b.vector, dim=0).abs() < 0.999
    assert check_qk(linear, scores, attribution) == first
    assert check_qk(linear, scores, attribution, seed=1) != first


def test_many_rank_correlations_at_once_are_those_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 50, 5)).astype(float)
    a[0] = 1.0
    together = qk_check._spearman_rows(a, b)
    for row, value in enumerate(together):
        alone = spearman(a[row], b[row])
        assert np.isnan(value) if alone is None else value == pytest.approx(alone)


def test_below_all_features_there_is_nothing_to_check():
    linear, scores, attribution = attributed("llama")
    names = attribution.names
    without = attribution.query_vectors.clone(), attribution.key_vectors.clone()
    for vectors in without:
        vectors[names.kind == 0] = 0
    empty = dataclasses.replace(attribution, query_vectors=without[0], key_vectors=without[1])
    assert check_qk(linear, scores, empty) is None
