"""Splicing, freezing and decomposing, on tiny models of several families."""

import copy

import pytest
import torch

from pellucid.core.errors import ConfigError, DictionaryError, ModelError
from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.load import load_model
from pellucid.replacement.freeze import attention_taps, freeze, norm_taps
from pellucid.replacement.local import local_replacement
from pellucid.replacement.model import ReplacementModel
from pellucid.replacement.splice import anchor_mask, replaced_logits
from support.tiny_dictionaries import BASES, tiny_basis, tiny_set, tiny_transcoders
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


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("family", ["gemma2", "phi3", "gpt2"])
def test_features_error_and_constants_add_up_to_what_the_model_computed(family, basis):
    model = load(family)
    dictionaries, missing = tiny_basis(model, basis)
    local = local_replacement(model, model.encode_ids(IDS), dictionaries, missing)
    for index, layer in enumerate(local.layers):
        frozen, active = local.run.layers[index], layer.active
        total = layer.error + layer.constant
        for lower in range(index + 1):
            for slot, site in local.slots(lower).items():
                if site == layer.write_site:
                    source = local.layers[lower].active
                    total = total.index_add(0, source.positions, source.written(slot))
        mlp = layer.mlp_constant
        if layer.path is not None:
            answered = layer.path.apply(frozen.mlp_in)
            total, mlp = (total + answered, mlp) if mlp is None else (total, mlp + answered)
        expected = local.run.residual(layer.write_site) if layer.cuts else frozen.mlp_out
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
        if mlp is not None:
            torch.testing.assert_close(mlp, frozen.mlp_out, rtol=1e-4, atol=1e-5)
        assert not (active.positions == 0).any(), "position 0 (BOS) has no features"


@pytest.mark.parametrize("kind", ["clt-mid", "clt-skip"])
def test_a_cross_layer_transcoder_computes_every_mlp_from_all_layers_below(kind: str):
    model = load("llama")
    parts = tiny_set(model, [kind] * model.n_layers)
    replaced = ReplacementModel(model, parts)
    ids = model.encode_ids(IDS)
    codes: list[torch.Tensor] = []
    read: dict[int, torch.Tensor] = {}
    taps = []
    for layer in range(model.n_layers):

        def remember(value, _call, layer=layer):
            codes[layer:] = [parts[layer].encode(value[0]).dense()]
            read[layer] = value[0]

        def write(value, _call, layer=layer):
            out = parts[layer].b_dec.clone().expand_as(value[0]).clone()
            for lower in range(layer + 1):
                out += codes[lower] @ parts[lower].W_dec[:, layer - lower]
            if kind == "clt-skip":
                out += read[layer] @ parts[layer].W_skip.T
            out[0] = value[0, 0]  # BOS keeps its own MLP
            return out[None]

        taps += [(parts[layer].read_site, remember), (Site("mlp_out", layer), write)]
    with model.tapped(taps):
        expected = model.logits(ids[None])
    for _ in range(2):  # nothing is left over from the forward before
        torch.testing.assert_close(replaced.logits(ids[None]), expected)
    with pytest.raises(DictionaryError, match="cannot stand without layer 0"):
        replaced.logits(ids[None], layers=[1])


def test_dictionaries_of_another_width_or_kind_are_refused():
    model, wide = load("llama"), load_model(tiny_model("llama", hidden_size=48), word_tokenizer())
    with pytest.raises(DictionaryError, match="width"):
        ReplacementModel(wide, tiny_transcoders(model))
    some = DictionarySet("some", {0: tiny_transcoders(model)[0]})
    with pytest.raises(DictionaryError, match="no dictionary for layer 1, 2 of 3"):
        ReplacementModel(model, some).local(model.encode_ids(IDS))
    elsewhere = tiny_transcoders(model, activation=TopK(2))
    for dictionary in elsewhere:
        dictionary.read_site = Site("resid_post", 0)
    with pytest.raises(DictionaryError, match="tracing takes transcoders"):
        ReplacementModel(model, elsewhere).local(model.encode_ids(IDS))


def test_a_model_with_a_broken_weight_is_named():
    model = load("llama")
    model.module.model.layers[1].self_attn.o_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite at resid_mid@1"):
        freeze(model, model.encode_ids(IDS))
