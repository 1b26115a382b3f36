"""Splicing, freezing and decomposing, on tiny models of several families."""

import copy

import pytest
import torch

from pellucid.core.errors import ConfigError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.load import load_model
from pellucid.replacement.freeze import attention_taps, freeze, norm_taps
from pellucid.replacement.model import ReplacementModel
from pellucid.replacement.splice import anchor_mask, replaced_logits
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

IDS = [11, 42, 7, 42, 30]


def load(family: str, dtype: torch.dtype = torch.float64):
    return load_model(tiny_model(family, dtype=dtype), word_tokenizer())


def mlp_function(model, layer):
    """What the model itself computes between mlp_in and mlp_out, post-norm included."""
    block = copy.deepcopy(model.module.get_submodule(f"{model.spec.blocks}.{layer}"))
    mlp = block.get_submodule(model.spec.mlp)
    post = model.spec.mlp_post_norm
    return lambda x: mlp(x) if post is None else block.get_submodule(post)(mlp(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_replacing_mlps_by_themselves_changes_nothing(family):
    model = load(family)
    ids = model.encode_ids(IDS)[None]
    functions = {layer: mlp_function(model, layer) for layer in range(model.n_layers)}
    torch.testing.assert_close(replaced_logits(model, functions, ids), model.logits(ids))


def test_only_the_leading_special_token_keeps_its_mlp():
    model = load("llama")
    ids = torch.tensor([[1, 11, 1, 7], [0, 0, 1, 11]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    expected = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]]).bool()
    assert torch.equal(anchor_mask(model, ids, mask), expected)

    seen = model.activations(ids, [Site("mlp_out", 0)], mask)[Site("mlp_out", 0)]
    captured = {}
    with model.tapped([(Site("resid_post", 0), lambda v, _: captured.update(post=v.clone()))]):
        replaced_logits(model, {0: torch.zeros_like}, ids, mask)
    with model.tapped([(Site("resid_post", 0), lambda v, _: captured.update(real=v.clone()))]):
        model.logits(ids, mask)
    difference = captured["real"] - captured["post"]
    real = mask & ~expected
    torch.testing.assert_close(difference[real], seen[real])
    assert difference[expected].abs().max() == 0


def test_layers_choose_what_is_replaced():
    model = load("gpt2")
    replacement = ReplacementModel(model, tiny_transcoders(model))
    ids = model.encode_ids(IDS)[None]
    torch.testing.assert_close(replacement.logits(ids, layers=[]), model.logits(ids))
    every = replacement.logits(ids)
    torch.testing.assert_close(replacement.logits(ids, layers=range(3)), every)
    assert (replacement.logits(ids, layers=[1]) - every).abs().max() > 1e-3
    with pytest.raises(ConfigError, match="layer 7 has no dictionary"):
        replacement.logits(ids, layers=[7])


def test_padding_does_not_change_a_replaced_row():
    model = load("qwen3", torch.float32)
    replacement = ReplacementModel(model, tiny_transcoders(model))
    single = replacement.logits(model.encode_ids(IDS)[None])[0]
    padded = torch.zeros(1, len(single) + 2, dtype=torch.long)
    padded[0, 2:] = model.encode_ids(IDS)
    mask = torch.arange(len(single) + 2)[None] >= 2
    torch.testing.assert_close(
        replacement.logits(padded, mask)[0, 2:], single, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_modules_reproduce_the_run_they_were_frozen_from(family):
    model = load(family)
    run = freeze(model, model.encode_ids(IDS))
    with model.tapped(attention_taps(run) + norm_taps(run)):
        frozen = model.logits(run.ids[None])
    # The library's RMS norms round to float32 inside, whatever the model's type.
    torch.testing.assert_close(frozen, model.logits(run.ids[None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_features_error_and_constants_add_up_to_the_mlp_output(skip):
    model = load("gemma2")
    dictionaries = tiny_transcoders(model, skip=skip)
    local = ReplacementModel(model, dictionaries).local(model.encode_ids(IDS))
    assert local.n_features > 0
    for index, layer in enumerate(local.layers):
        frozen, dictionary = local.run.layers[index], dictionaries[index]
        total = layer.error + layer.constant
        written = dictionary.W_dec[layer.features] * layer.activations[:, None]
        total = total.index_add(0, layer.positions, written)
        if skip:
            answered = dictionary.skip(frozen.mlp_in)
            total = total + answered.masked_fill(layer.anchored[:, None], 0)
        torch.testing.assert_close(total, frozen.mlp_out)
        assert not (layer.positions == 0).any(), "position 0 (BOS) has no features"


def test_dictionaries_of_another_width_or_kind_are_refused():
    model, wide = load("llama"), load_model(tiny_model("llama", hidden_size=48), word_tokenizer())
    with pytest.raises(DictionaryError, match="width"):
        ReplacementModel(wide, tiny_transcoders(model))
    some = DictionarySet("some", {0: tiny_transcoders(model)[0]})
    with pytest.raises(DictionaryError, match="no layer 1"):
        ReplacementModel(model, some).local(model.encode_ids(IDS))
    elsewhere = tiny_transcoders(model, activation=TopK(2))
    for dictionary in elsewhere:
        dictionary.read_site = Site("resid_post", 0)
    with pytest.raises(DictionaryError, match="tracing needs transcoders"):
        ReplacementModel(model, elsewhere).local(model.encode_ids(IDS))
