"""QK attribution against the scores of the real modules, and against interventions on them."""

import json

import pytest
import torch

from pellucid.attribution.attention.layer_scores import layer_scores
from pellucid.attribution.attention.qk import qk_attribution
from pellucid.attribution.checks.measure import frozen_taps
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import linearise
from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.models.taps import TapPoint
from pellucid.replacement.local import local_replacement
from support.tiny_dictionaries import BASES, tiny_basis
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
HEAD, QUERY, KEY = 3, 5, 3
CASES = [(family, "skip") for family in FAMILIES]
CASES += [("qwen3", basis) for basis in BASES if basis != "skip"]


def linear_model(family, basis="skip", *, dtype=torch.float64):
    model = load_model(tiny_model(family, dtype=dtype), word_tokenizer())
    return linearised(model, basis)


def linearised(model, basis):
    dictionaries, missing = tiny_basis(model, basis)
    linear = linearise(local_replacement(model, model.encode_ids(PROMPT), dictionaries, missing))
    return linear, SourceTable(linear)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_sum_to_the_score_that_the_model_used(family):
    linear, table = linear_model(family, dtype=torch.float32)
    for layer in range(len(linear.blocks)):
        scores = layer_scores(linear, layer)
        assert scores.pattern_max_error() <= 1e-5
        keys = (scores.pattern[HEAD, QUERY] > 0).nonzero().squeeze(1).tolist()
        found = [
            qk_attribution(linear, table, layer, HEAD, QUERY, key, scores=scores) for key in keys
        ]
        for attribution in found:
            assert attribution.sum_error() <= 1e-4
            kinds = attribution.by_kind().sum()
            assert float(kinds) == pytest.approx(attribution.explained, rel=1e-3, abs=1e-3)
        totals = torch.tensor([attribution.total() for attribution in found])
        pattern = scores.weights.capped(totals).softmax(0)
        recorded = linear.local.run.layers[layer].pattern[HEAD, QUERY, keys]
        assert float((pattern - recorded).abs().max()) <= 1e-5


@pytest.mark.parametrize(("family", "basis"), CASES)
def test_without_a_source_the_score_of_the_frozen_model_changes_as_predicted(family, basis):
    """The real modules run with the source taken out; only the score is free."""
    linear, table = linear_model(family, basis)
    local, layer = linear.local, 2
    scores = layer_scores(linear, layer)
    attribution = qk_attribution(linear, table, layer, HEAD, QUERY, KEY, scores=scores)
    contrast = qk_attribution(linear, table, layer, HEAD, QUERY, KEY, scores=scores, contrast=True)
    names, chosen, deltas = attribution.names, [], []
    for number in range(len(names) - 1):
        key = names.key(number)
        if key.position > QUERY or (
            key.kind == "error" and local.layers[key.layer].anchored[key.position]
        ):
            continue
        chosen.append(number)
        deltas.append({site: (key.position, -vector) for site, vector in written(linear, key)})
    chosen, deltas = chosen[:: 1 + len(chosen) // 40], deltas[:: 1 + len(chosen) // 40]
    measured = frozen_scores(linear, scores, deltas)
    change = measured[1:, HEAD, QUERY] - measured[0, HEAD, QUERY]
    ours = attribution.without(torch.tensor(chosen))
    torch.testing.assert_close(ours, change[:, KEY], rtol=1e-5, atol=1e-6)
    others = scores.others(HEAD, QUERY, KEY)
    torch.testing.assert_close(
        contrast.without(torch.tensor(chosen)),
        change[:, KEY] - change[:, others].mean(1),
        rtol=1e-5,
        atol=1e-6,
    )
    assert (ours.abs() > 1e-3).sum() >= 3


def written(linear, key):
    """Where a source writes, and what."""
    if key.kind == "token":
        return [(Site("embed"), linear.tokens[key.position])]
    part = linear.local.layers[key.layer]
    if key.kind == "error":
        return [(part.write_site, part.error[key.position])]
    here = (part.active.positions == key.position) & (part.active.features == key.index)
    slots = linear.local.slots(key.layer)
    return [(site, part.active.written(slot)[here][0]) for slot, site in slots.items()]


def adding(deltas, site):
    """A tap that adds, in row i + 1, what delta i has for the site."""
    mine = [(i + 1, *delta[site]) for i, delta in enumerate(deltas) if site in delta]

    def add(value, _call):
        changed = value.clone()
        for row, position, vector in mine:
            changed[row, position] += vector
        return changed

    return add


def frozen_values(linear, deltas, point):
    """What is at a point of the frozen model, with nothing and with each delta added."""
    local, model = linear.local, linear.local.run.model
    # The embedding is the very place of resid_pre@0: changed before anything reads it.
    sites = dict.fromkeys(site for delta in deltas for site in delta)
    taps = [(site, adding(deltas, site)) for site in sites if site.kind == "embed"]
    taps += frozen_taps(local)
    taps += [(site, adding(deltas, site)) for site in sites if site.kind != "embed"]
    read = {}
    taps.append((point, lambda value, _: read.update(x=value.clone())))
    with model.tapped(taps):
        model.logits(local.run.ids.expand(len(deltas) + 1, -1))
    return read["x"]


def frozen_scores(linear, scores, deltas):
    """Scores, norm scales of queries and keys frozen, with nothing and with each delta added."""
    frozen = []
    for x in frozen_values(linear, deltas, TapPoint(scores.weights.path, "input")):
        sides = []
        for side, factors in zip(
            (scores.weights.query, scores.weights.key), scores.factors, strict=True
        ):
            vectors = side.project(x) * factors
            turned = vectors if scores.rotation is None else scores.rotation.apply_all(vectors)
            group = scores.weights.query.n_heads // side.n_heads
            sides.append(turned.repeat_interleave(group, dim=1))
        frozen.append(scores.weights.scale * torch.einsum("qhe,khe->hqk", *sides))
    return torch.stack(frozen)


@pytest.mark.parametrize(("family", "basis"), CASES)
def test_answered_contributions_are_derivatives_with_the_layers_norms_alive(family, basis):
    """What a source adds to the residual, sent through the live norms by automatic derivation."""
    linear, table = linear_model(family, basis)
    layer = 2
    scores = layer_scores(linear, layer)
    attribution = qk_attribution(
        linear, table, layer, HEAD, QUERY, KEY, scores=scores, contrast=True
    )
    names, norm = attribution.names, linear.local.run.layers[layer].block.attn_norm
    chosen = [
        number
        for number in range(len(names) - 1)
        if any(vector.any() for _, vector in written(linear, names.key(number)))
    ]
    chosen = chosen[:: 1 + len(chosen) // 25]
    deltas = [
        {site: (names.key(n).position, vector) for site, vector in written(linear, names.key(n))}
        for n in chosen
    ]
    resid = frozen_values(linear, deltas, Site("resid_pre", layer))
    others = scores.others(HEAD, QUERY, KEY)

    def contrast(x):
        read = x if norm is None else norm.apply(x, norm.scale(x))
        own = scores.weights.scores(read, scores.rotation)[HEAD, QUERY]
        return own[KEY] - own[others].mean()

    slopes = [
        torch.autograd.functional.jvp(contrast, resid[0], changed - resid[0])[1]
        for changed in resid[1:]
    ]
    query, key = attribution.query_vectors.sum(0), attribution.key_vectors.sum(0)
    ours = attribution.query_answered @ key + attribution.key_answered @ query
    torch.testing.assert_close(ours[chosen], torch.stack(slopes), rtol=1e-5, atol=1e-6)
    has_norms = norm is not None or scores.weights.query.norm is not None
    held = attribution.by_query_source() + attribution.by_key_source()
    assert not has_norms or not torch.allclose(held[chosen], ours[chosen], rtol=1e-2)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("contrast", [False, True])
def test_pairs_and_shares_against_the_whole_matrix(family, contrast, monkeypatch):
    monkeypatch.setattr("pellucid.attribution.attention.qk.PAIRS_AT_ONCE", 100)
    linear, table = linear_model(family)
    attribution = qk_attribution(linear, table, 1, 0, 4, 2, contrast=contrast)
    pairs_CC = attribution.query_vectors @ attribution.key_vectors.T
    assert float(pairs_CC.sum()) == pytest.approx(attribution.explained, rel=1e-5)
    best, sizes = attribution.top_pairs(15)
    values = torch.tensor([pair.value for pair in best]).abs()
    expected = pairs_CC.abs().flatten().topk(15).values.float()
    torch.testing.assert_close(values, expected)
    for pair in best:
        assert pair.value == pytest.approx(float(pairs_CC[pair.query, pair.key]))
    kind = attribution.names.kind
    for i in range(4):
        for j in range(4):
            block = pairs_CC[kind == i][:, kind == j]
            assert float(sizes[i, j]) == pytest.approx(float(block.abs().sum()))
            assert float(attribution.by_kind()[i, j]) == pytest.approx(float(block.sum()), abs=1e-9)
    torch.testing.assert_close(attribution.by_query_source(), pairs_CC.sum(1))
    torch.testing.assert_close(attribution.by_key_source(), pairs_CC.sum(0))
    record = json.loads(json.dumps(attribution.to_json(5), allow_nan=False))
    shares = sum(sum(row.values()) for row in record["shares"].values())
    assert shares == pytest.approx(1)
    listed = record["constant_share"], record["error_share"]
    assert all(0 < share < 1 for share in listed)
    assert len(record["pairs"]) == 5


def test_shifting_all_scores_of_a_query_leaves_the_contrast():
    """A key bias adds the same to every key's score where nothing rotates: no contrast."""
    linear, table = linear_model("gpt2")
    plain = qk_attribution(linear, table, 1, 0, 4, 2, contrast=True)
    attention = linear.local.run.model.module.transformer.h[1].attn
    attention.c_attn.bias.data[32:64] += 1.0
    shifted_linear, table = linearised(linear.local.run.model, "skip")
    score = qk_attribution(shifted_linear, table, 1, 0, 4, 2)
    shifted = qk_attribution(shifted_linear, table, 1, 0, 4, 2, contrast=True)
    assert abs(score.score - plain.score) > 1e-3
    assert shifted.explained == pytest.approx(plain.explained)
    assert shifted.total() == pytest.approx(plain.total())


def test_a_contrast_is_with_the_keys_attended_to_most(monkeypatch):
    monkeypatch.setattr("pellucid.attribution.attention.layer_scores.MOST_KEYS", 2)
    linear, table = linear_model("llama")
    scores = layer_scores(linear, 1)
    found = qk_attribution(linear, table, 1, 0, QUERY, KEY, contrast=True, scores=scores)
    attention = scores.pattern[0, QUERY].clone()
    attention[KEY] = 0
    best = attention.argsort(descending=True)[:2]
    mean = scores.scores[0, QUERY, best].mean()
    assert found.explained == pytest.approx(float(scores.scores[0, QUERY, KEY] - mean))
    assert found.total() == pytest.approx(found.explained, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "contrast", "message"),
    [
        ((1, 9, 4, 2), False, "head 9 of layer 1; use 0 to 3"),
        ((1, 0, 6, 2), False, "query position 6; the prompt has 0 to 5"),
        ((1, 0, 2, 4), False, "position 2 does not see position 4 in layer 1"),
        ((1, 0, 0, 0), True, "sees no position but 0"),
    ],
)
def test_impossible_scores_are_refused(arguments, contrast, message):
    linear, table = linear_model("llama")
    with pytest.raises(ConfigError, match=message):
        qk_attribution(linear, table, *arguments, contrast=contrast)
