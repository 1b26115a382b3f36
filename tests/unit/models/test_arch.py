from dataclasses import replace

import pytest
import transformers

from pellucid.core.errors import ConfigError, SiteError
from pellucid.core.types import Site
from pellucid.models.families import FAMILIES, GEMMA2, GPT_NEOX, LLAMA, find_spec
from pellucid.models.taps import TapPoint
from support.tiny_models import FAMILIES as TINY_FAMILIES
from support.tiny_models import tiny_model


@pytest.mark.parametrize(
    ("site", "point"),
    [
        (Site("embed"), TapPoint("model.layers.0", "input")),
        (Site("resid_pre", 1), TapPoint("model.layers.1", "input")),
        (
            Site("resid_mid", 1),
            TapPoint("model.layers.1.post_attention_layernorm", "input", in_place=True),
        ),
        (Site("resid_post", 1), TapPoint("model.layers.1", "output")),
        (Site("attn_out", 1), TapPoint("model.layers.1.self_attn", "output")),
        (Site("mlp_in", 1), TapPoint("model.layers.1.mlp", "input")),
        (Site("mlp_out", 1), TapPoint("model.layers.1.mlp", "output")),
    ],
    ids=str,
)
def test_points_of_llama(site: Site, point: TapPoint) -> None:
    assert LLAMA.point(site, n_layers=2) == point


def test_what_is_added_comes_after_a_post_norm() -> None:
    attn_out = GEMMA2.point(Site("attn_out", 0), 1)
    mlp_out = GEMMA2.point(Site("mlp_out", 0), 1)
    assert attn_out == TapPoint("model.layers.0.post_attention_layernorm", "output")
    assert mlp_out == TapPoint("model.layers.0.post_feedforward_layernorm", "output")


def test_without_a_norm_the_mlp_reads_the_residual_itself() -> None:
    spec = FAMILIES["olmo2"]
    mid, mlp_in = spec.point(Site("resid_mid", 0), 1), spec.point(Site("mlp_in", 0), 1)
    assert mid == replace(mlp_in, in_place=True)


def test_no_resid_mid_in_a_parallel_block() -> None:
    with pytest.raises(SiteError, match=r"resid_mid@0 does not exist in gpt_neox.*use resid_pre"):
        GPT_NEOX.point(Site("resid_mid", 0), 1)


def test_no_layer_past_the_last() -> None:
    with pytest.raises(SiteError, match=r"mlp_in@2 names layer 2 of a model with 2 layers; use 0"):
        LLAMA.point(Site("mlp_in", 2), 2)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_configuration_finds_its_family(family: str) -> None:
    spec = find_spec(tiny_model(family).config)
    assert spec is FAMILIES[family]


def test_every_family_has_a_tiny_model() -> None:
    assert set(FAMILIES) == set(TINY_FAMILIES)


def test_unknown_families() -> None:
    assert find_spec(transformers.BertConfig()) is None
    assert find_spec(None) is None
    with pytest.raises(ConfigError, match="unknown family 'bert'; use one of gpt2, gpt_neox"):
        FAMILIES["bert"]
