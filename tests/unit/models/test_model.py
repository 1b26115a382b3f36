import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from pellucid.core.errors import ModelError, SiteError
from pellucid.core.types import ModuleSite, Site, parse_site
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import FAMILIES, N_LAYERS, tiny_model, word_tokenizer

IDS = torch.tensor([[1, 7, 30, 5, 12, 44], [1, 9, 9, 60, 4, 33]])


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_and_patterns_against_what_transformers_records(family: str) -> None:
    module = tiny_model(family)
    model = load_model(module)
    record = module(IDS, output_hidden_states=True, output_attentions=True, use_cache=False)

    sites = [Site("embed"), *(Site("resid_pre", layer) for layer in range(N_LAYERS))]
    values = model.activations(IDS, sites)
    assert torch.equal(values[Site("embed")], record.hidden_states[0])
    for layer in range(N_LAYERS):
        assert torch.equal(values[Site("resid_pre", layer)], record.hidden_states[layer])

    patterns: dict[int, Tensor] = {}
    taps = [
        (
            model.attention_pattern_point(layer),
            lambda _, call, layer=layer: patterns.update({layer: call.outputs[1]}),
        )
        for layer in range(N_LAYERS)
    ]
    with model.tapped(taps):
        logits = model.logits(IDS)
    assert torch.equal(logits, record.logits)
    for layer in range(N_LAYERS):
        assert torch.equal(patterns[layer], record.attentions[layer])


@pytest.mark.parametrize("family", FAMILIES)
def test_dimensions(family: str) -> None:
    model = load_model(tiny_model(family))
    assert (model.n_layers, model.d_model, model.vocab_size) == (3, 32, 67)
    assert model.context_length == 48
    assert model.unembedding().shape == (67, 32)
    assert model.unembedding_bias() is None
    assert model.token_embedding(IDS).shape == (2, 6, 32)
    assert model.logit_softcap == (3.0 if family == "gemma2" else None)
    assert model.device == torch.device("cpu")


def test_the_module_is_frozen_and_in_eval_mode() -> None:
    module = tiny_model("gpt2").train()
    model = load_model(module)
    assert model.module is module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not model.logits(IDS).requires_grad


def test_a_gradient_flows_from_an_edit_to_the_logits() -> None:
    model = load_model(tiny_model("llama"))
    delta = torch.zeros(32, requires_grad=True)
    with model.tapped([(Site("resid_mid", 1), lambda value, call: value + delta)]):
        model.logits(IDS).sum().backward()
    assert delta.grad is not None
    assert delta.grad.abs().sum() > 0


def test_setting_resid_mid_equals_adding_the_difference_to_attn_out() -> None:
    model, delta = load_model(tiny_model("olmo2")), torch.randn(32)
    logits = []
    for kind in ("resid_mid", "attn_out"):
        with model.tapped([(Site(kind, 1), lambda value, call: value + delta)]):
            logits.append(model.logits(IDS))
    torch.testing.assert_close(*logits)


def test_an_edit_can_address_one_position_of_one_row() -> None:
    model = load_model(tiny_model("qwen3"))
    plain = model.logits(IDS)

    def edit(value: Tensor, _: object) -> Tensor:
        value = value.clone()
        value[1, 3] += 1.0
        return value

    with model.tapped([(Site("mlp_out", 0), edit)]):
        edited = model.logits(IDS)
    changed = (edited != plain).any(-1)
    assert changed.tolist() == [[False] * 6, [False] * 3 + [True] * 3]


def test_activations_inside_an_edit_show_the_edited_model() -> None:
    model = load_model(tiny_model("llama"))
    with model.tapped([(Site("resid_mid", 1), lambda value, call: value * 0)]):
        value = model.activations(IDS, [Site("resid_mid", 1)])[Site("resid_mid", 1)]
    assert not value.any()


def test_module_sites_and_sites_mix() -> None:
    model = load_model(tiny_model("llama"))
    module_site = parse_site("model.layers.1.mlp.down_proj:input")
    values = model.activations(IDS, [module_site, Site("mlp_in", 1)])
    mlp = model.module.model.layers[1].mlp
    mlp_in = values[Site("mlp_in", 1)]
    expected = mlp.act_fn(mlp.gate_proj(mlp_in)) * mlp.up_proj(mlp_in)
    torch.testing.assert_close(values[module_site], expected)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("mlp_in", 3), "names layer 3 of a model with 3 layers"),
        (ModuleSite("model.layers.0.mlq", "input"), r"closest is 'model\.layers\.0\.mlp'"),
    ],
)
def test_sites_that_do_not_exist(site: Site | ModuleSite, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        load_model(tiny_model("llama")).activations(IDS, [site])


@pytest.mark.parametrize("layer", [-1, 3])
def test_layers_that_do_not_exist(layer: int) -> None:
    model = load_model(tiny_model("llama"))
    for use in (model.block, model.attention_pattern_point):
        with pytest.raises(SiteError, match=f"layer {layer} does not exist.*use 0 to 2"):
            use(layer)


def tiny_bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=67,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
    )
    return BertModel(config).eval()


class TestEncoder:
    """A module without a family: module sites, and nothing else."""

    @pytest.fixture
    def model(self) -> LanguageModel:
        return load_model(tiny_bert(), word_tokenizer())

    def test_module_sites(self, model: LanguageModel) -> None:
        read = ModuleSite("encoder.layer.0.intermediate.dense", "input")
        write = ModuleSite("encoder.layer.0.output.dense", "output")
        values = model.activations(IDS, [read, write])
        layer = model.module.encoder.layer[0]
        expected = layer.output.dense(layer.intermediate(values[read]))
        torch.testing.assert_close(values[write], expected)

    def test_padding_is_masked(self, model: LanguageModel) -> None:
        site = ModuleSite("encoder.layer.1", "output")
        padded = torch.cat([IDS, torch.zeros(2, 3, dtype=torch.long)], dim=1)
        mask = torch.arange(9) < torch.tensor([[6], [6]])
        alone = model.activations(IDS, [site])[site]
        torch.testing.assert_close(model.activations(padded, [site], mask)[site][:, :6], alone)

    def test_what_needs_a_family_says_so(self, model: LanguageModel) -> None:
        assert model.spec is None
        with pytest.raises(SiteError, match=r"site mlp_in@0 needs a known family \(gpt2, .*Bert"):
            model.activations(IDS, [Site("mlp_in", 0)])
        for use in (model.final_norm, model.unembedding, lambda: model.block(0)):
            with pytest.raises(SiteError, match="this operation needs a known family"):
                use()
        with pytest.raises(ModelError, match=r"BertModel\) gives no logits"):
            model.logits(IDS)

    def test_dimensions_and_fingerprint(self, model: LanguageModel) -> None:
        assert (model.n_layers, model.d_model, model.context_length) == (2, 32, 24)
        assert model.fingerprint() == load_model(tiny_bert()).fingerprint()


def test_a_module_without_a_configuration_explains_what_is_missing() -> None:
    model = load_model(torch.nn.Linear(3, 3))
    with pytest.raises(ModelError, match=r"Linear\) has no 'hidden_size'"):
        _ = model.d_model


class TestFingerprint:
    def test_does_not_depend_on_dtype_or_name(self) -> None:
        model = load_model(tiny_model("llama"))
        again = LanguageModel(tiny_model("llama"), spec=model.spec, name="another")
        half = load_model(tiny_model("llama", dtype=torch.bfloat16))
        assert model.fingerprint() == again.fingerprint() == half.fingerprint()

    def test_depends_on_weights_of_every_layer(self) -> None:
        prints = {load_model(tiny_model("llama", seed=1)).fingerprint()}
        for layer in range(N_LAYERS):
            module = tiny_model("llama")
            prints.add(load_model(module).fingerprint())
            module.model.layers[layer].mlp.up_proj.weight.mul_(1.1)
            prints.add(load_model(module).fingerprint())
        assert len(prints) == 2 + N_LAYERS

    def test_depends_on_what_the_weights_alone_do_not_show(self) -> None:
        families = {
            load_model(tiny_model(family)).fingerprint()
            for family in ("gpt_neox", "gpt_neox_sequential")
        }
        heads = {load_model(tiny_model("gpt2", n_head=heads)).fingerprint() for heads in (2, 4)}
        assert len(families) == len(heads) == 2
