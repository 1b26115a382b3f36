"""QK attribution against the scores of the real modules, and against interventions on them."""

import json

import pytest
import torch

from pellucid.attribution.linearise import linearise
from pellucid.attribution.measure import frozen_taps
from pellucid.attribution.qk import layer_scores, qk_attribution
from pellucid.attribution.sweep import SourceTable
from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.models.taps import TapPoint
from pellucid.replacement.model import ReplacementModel
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
HEAD, QUERY, KEY = 3, 5, 3


def linear_model(family, *, dtype=torch.float64, skip=True, **settings):
    module = tiny_model(family, dtype=dtype, **settings)
    model = load_model(module, word_tokenizer())
    dictionaries = tiny_transcoders(model, skip=skip)
    linear = linearise(ReplacementModel(model, dictionaries).local(model.encode_ids(PROMPT)))
    return linear, SourceTable(linear)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_sum_to_the_score_that_the_model_used(family):
    linear, table = linear_model(family, dtype=torch.float32)
    for layer in range(1, len(linear.blocks)):
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


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_source_the_score_of_the_frozen_model_changes_as_predicted(family):
    """The real modules run with the source taken out; only the score is free."""
    linear, table = linear_model(family)
    local, layer = linear.local, 2
    scores = layer_scores(linear, layer)
    attribution = qk_attribution(linear, table, layer, HEAD, QUERY, KEY, scores=scores)
    contrast = qk_attribution(linear, table, layer, HEAD, QUERY, KEY, scores=scores, contrast=True)
    chosen, deltas = [], []
    for number, kind in enumerate(attribution.names.kind.tolist()):
        place = [int(getattr(attribution.names, n)[number]) for n in ("layer", "position", "index")]
        if place[0] >= layer or kind == 3 or place[1] > QUERY:
            continue
        part = local.layers[max(place[0], 0)]
        if kind == 0:
            here = (part.positions == place[1]) & (part.features == place[2])
            vector = local.dictionaries[place[0]].W_dec[place[2]] * part.activations[here]
        elif kind == 1:
            vector = part.error[place[1]]
        else:
            vector = linear.tokens[place[1]]
        site = Site("embed") if kind == 2 else Site("mlp_out", place[0])
        chosen.append(number)
        deltas.append((site, place[1], -vector))
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
    assert (ours.abs() > 1e-3).sum() > 5


def frozen_scores(linear, scores, deltas):
    """Scores, norm scales of queries and keys frozen, with nothing and with each delta added."""
    local, model = linear.local, linear.local.run.model
    taps = frozen_taps(local)
    for site in dict.fromkeys(site for site, _, _ in deltas):
        mine = [(i + 1, p, v) for i, (s, p, v) in enumerate(deltas) if s == site]

        def add(value, _call, mine=mine):
            changed = value.clone()
            for row, position, vector in mine:
                changed[row, position] += vector
            return changed

        taps.append((site, add))
    read = {}
    point = TapPoint(scores.weights.path, "input")
    taps.append((point, lambda value, _: read.update(x=value.clone())))
    with model.tapped(taps):
        model.logits(local.run.ids.expand(len(deltas) + 1, -1))
    frozen = []
    for x in read["x"]:
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


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("contrast", [False, True])
def test_pairs_and_shares_against_the_whole_matrix(family, contrast, monkeypatch):
    monkeypatch.setattr("pellucid.attribution.qk.PAIRS_AT_ONCE", 100)
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
    shifted_linear = linearise(
        ReplacementModel(
            linear.local.run.model,
            tiny_transcoders(linear.local.run.model, skip=True),
        ).local(linear.local.run.ids)
    )
    score = qk_attribution(shifted_linear, table, 1, 0, 4, 2)
    shifted = qk_attribution(shifted_linear, table, 1, 0, 4, 2, contrast=True)
    assert abs(score.score - plain.score) > 1e-3
    assert shifted.explained == pytest.approx(plain.explained)
    assert shifted.total() == pytest.approx(plain.total())


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
