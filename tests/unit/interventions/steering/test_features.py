"""Feature vectors and their output scores, against loops written out by hand."""

import pytest
import torch

from pellucid.core.errors import DictionaryError, InterventionError
from pellucid.core.types import Site
from pellucid.interventions.steering.features import (
    contrasting_features,
    feature_vector,
    output_scores,
    promoted,
    rank_features,
)
from pellucid.interventions.steering.strength import median_norm
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_dictionaries import relu, tiny_transcoders
from support.tiny_models import tiny_model

PROMPTS = ["w5 w6 w7", "w8"]


def test_a_feature_vector_is_the_decoder_row_where_the_dictionary_writes(
    tiny: LanguageModel,
) -> None:
    dictionaries = tiny_transcoders(tiny)
    vector = feature_vector(tiny, dictionaries, 1, 5)
    assert vector.site == Site("mlp_out", 1)
    torch.testing.assert_close(vector.vector, dictionaries[1].W_dec[5])
    assert (vector.provenance["layer"], vector.provenance["feature"]) == (1, 5)
    with pytest.raises(InterventionError, match=r"feature 24 is out of range.*0 to 23"):
        feature_vector(tiny, dictionaries, 1, 24)
    with pytest.raises(DictionaryError, match="no layer 8"):
        feature_vector(tiny, dictionaries, 8, 0)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_promoted_tokens_are_those_of_the_final_norm_and_unembedding(family: str) -> None:
    model = load_model(tiny_model(family))
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    norm = model.final_norm()
    for row, tokens in zip(rows, promoted(model, rows, 4), strict=True):
        moved = row - row.mean() if norm.centred else row
        logits = [float((moved * norm.gain) @ u) for u in model.unembedding()]
        best = sorted(range(len(logits)), key=lambda n: -logits[n])[:4]
        assert tokens.tolist() == best


def weighted(model: LanguageModel, prompt: str, tokens: list[int], added=None) -> float:
    """max over tokens of p (1 - rank / V) after a prompt."""

    def add(value, _):
        if added is None:
            return None
        shift = torch.zeros_like(value)
        shift[:, 1:] = added
        return value + shift

    with model.tapped([(Site("mlp_out", 1), add)]):
        p = model.logits(model.encode(prompt)[None])[0, -1].softmax(-1)
    ranks = [int((p > p[token]).sum()) for token in tokens]
    return max(float(p[t]) * (1 - r / len(p)) for t, r in zip(tokens, ranks, strict=True))


def test_output_scores_by_hand(tiny: LanguageModel) -> None:
    dictionaries = tiny_transcoders(tiny)
    features, target = [3, 0, 17], [9, 30]
    found = output_scores(tiny, dictionaries, 1, features, PROMPTS, target=target, rho=2.0, top=5)
    assert [each.feature for each in found] == features
    for each in found:
        vector = feature_vector(tiny, dictionaries, 1, each.feature)
        added = vector.vector * (2.0 * median_norm(tiny, vector, PROMPTS) / vector.norm)
        for value, tokens in ((each.score, list(each.tokens)), (each.target, target)):
            rises = [weighted(tiny, p, tokens, added) - weighted(tiny, p, tokens) for p in PROMPTS]
            assert value == pytest.approx(sum(rises) / 2, abs=1e-5)
    assert output_scores(tiny, dictionaries, 1, [], PROMPTS) == []


def test_ranking_keeps_what_reaches_the_output_in_the_order_of_the_target(
    tiny: LanguageModel,
) -> None:
    dictionaries = tiny_transcoders(tiny)
    every = {layer: range(24) for layer in range(3)}
    ranked = rank_features(tiny, dictionaries, [9], PROMPTS, candidates=every, least=0.02, rho=3.0)
    scores = [
        each
        for layer in range(3)
        for each in output_scores(
            tiny, dictionaries, layer, range(24), PROMPTS, target=[9], rho=3.0
        )
    ]
    kept = {(each.layer, each.feature) for each in scores if each.score >= 0.02}
    assert 0 < len(kept) < 72
    assert {(each.layer, each.feature) for each in ranked} == kept
    assert [each.target for each in ranked] == sorted((e.target for e in ranked), reverse=True)
    own = rank_features(tiny, dictionaries, [9], PROMPTS, per_layer=4, least=-1.0, rho=3.0)
    assert len(own) == 12
    with pytest.raises(InterventionError, match="no target token"):
        rank_features(tiny, dictionaries, [], PROMPTS)


def test_contrasting_features_are_those_with_the_larger_mean(tiny: LanguageModel) -> None:
    dictionaries = tiny_transcoders(tiny, activation=relu())
    negative = ["w20 w21", "w22"]
    found = contrasting_features(tiny, dictionaries, PROMPTS, negative, per_layer=5)
    for layer in range(3):
        site = Site("mlp_in", layer)
        means = [
            torch.stack(
                [
                    dictionaries[layer]
                    .encode(tiny.activations(tiny.encode(text)[None], [site])[site][0, -1:])
                    .dense()[0]
                    for text in side
                ]
            ).mean(0)
            for side in (PROMPTS, negative)
        ]
        difference = means[0] - means[1]
        order = difference.argsort(descending=True)[:5]
        assert found[layer] == [int(f) for f in order if difference[f] > 0]
