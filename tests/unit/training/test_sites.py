"""Which sites a run trains on, from its kind, layers and paths."""

import pytest

from pellucid.core.errors import ConfigError, SiteError
from pellucid.core.types import ModuleSite, Site
from pellucid.models.load import load_model
from pellucid.training.sites import layer_sites
from support.tiny_models import N_LAYERS, tiny_model

MODEL = load_model(tiny_model("llama"))


def test_defaults_by_kind() -> None:
    for kind in ("transcoder", "skip-transcoder"):
        assert layer_sites(MODEL, kind) == {
            layer: (Site("mlp_in", layer), Site("mlp_out", layer)) for layer in range(N_LAYERS)
        }
    resid = Site("resid_post", 1)
    assert layer_sites(MODEL, "sae", layers=[1]) == {1: (resid, resid)}


def test_layers_come_sorted() -> None:
    assert list(layer_sites(MODEL, "sae", layers=[2, 0])) == [0, 2]


def test_paths_name_the_input_of_one_module_and_the_output_of_another() -> None:
    read, write = "encoder.{layer}.a", "encoder.{layer}.b"
    expected = (ModuleSite("encoder.2.a", "input"), ModuleSite("encoder.2.b", "output"))
    assert layer_sites(MODEL, "transcoder", layers=[2], read=read, write=write) == {2: expected}
    assert layer_sites(MODEL, "sae", layers=[2], read=read) == {2: expected[:1] * 2}
    assert layer_sites(MODEL, "sae", layers=[2], write=write) == {2: expected[1:] * 2}


def test_a_site_in_words_says_its_side_itself() -> None:
    sites = layer_sites(
        MODEL, "transcoder", layers=[1], read="resid_mid@{layer}", write="h.{layer}:input"
    )
    assert sites == {1: (Site("resid_mid", 1), ModuleSite("h.1", "input"))}


def test_one_fixed_module_is_layer_0() -> None:
    assert layer_sites(MODEL, "sae", write="pooler") == {0: (ModuleSite("pooler", "output"),) * 2}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("transcoder", {"layers": [0, 3]}, "layer 3 does not exist .* use 0 to 2"),
        ("transcoder", {"layers": [-1]}, "layer -1 does not exist"),
        ("transcoder", {"layers": [1, 1]}, "name each layer once"),
        ("transcoder", {"layers": []}, "name each layer once"),
        ("transcoder", {"read": "a"}, "needs --read and --write together"),
        ("sae", {"read": "a", "write": "b"}, "reads what it writes"),
        ("sae", {"read": "a", "layers": [0, 1]}, "2 layers would train on the same module"),
    ],
)
def test_contradictions_are_refused(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer_sites(MODEL, kind, **options)  # type: ignore[arg-type]


def test_an_unknown_site_is_refused() -> None:
    with pytest.raises(SiteError, match="unknown site kind 'mlp_inn'"):
        layer_sites(MODEL, "sae", read="mlp_inn@{layer}")
