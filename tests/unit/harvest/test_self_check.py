"""Dictionaries whose site was changed by hand are told from those that are where they belong."""

import copy

import pytest

from pellucid.api import load_dictionaries, load_model
from pellucid.core.errors import DictionaryError
from pellucid.core.manifest import Manifest
from pellucid.core.types import Site
from pellucid.dictionaries import DictionarySet
from pellucid.harvest.self_check import Recorded, check_fidelity, read_inputs, recorded_figures
from pellucid.models.model import LanguageModel
from support.tiny_dictionaries import tiny_set

MOVED = {
    "the residual before the norm": (Site("resid_mid", 2), Site("mlp_out", 2)),
    "one layer off": (Site("mlp_in", 1), Site("mlp_out", 1)),
    "what attention adds": (Site("mlp_in", 2), Site("attn_out", 2)),
    "the residual after it": (Site("mlp_in", 2), Site("resid_post", 2)),
}


@pytest.fixture(scope="module")
def specimen() -> LanguageModel:
    return load_model("specimen")


@pytest.fixture(scope="module")
def transcoders() -> DictionarySet:
    return load_dictionaries("specimen")


def with_manifest(transcoders: DictionarySet, results: object) -> DictionarySet:
    assert transcoders.manifest is not None
    manifest = Manifest(kind="dictionaries", results=results)  # type: ignore[arg-type]
    return DictionarySet("moved", {2: copy.copy(transcoders[2])}, manifest)


def results(fvu: float = 0.0085, l0: float = 12.0) -> dict[str, object]:
    return {"layers": [{"layer": 2, "fvu": fvu, "l0": l0, "dead": 0.0}]}


def test_dictionaries_where_they_belong_pass(
    specimen: LanguageModel, transcoders: DictionarySet
) -> None:
    measured = check_fidelity(transcoders, specimen, "specimen")
    recorded = recorded_figures(transcoders)
    assert [found.layer for found in measured] == [0, 1, 2, 3]
    for found in measured:
        assert found.fvu < 1.5 * recorded[found.layer].fvu
        assert abs(found.l0 - recorded[found.layer].l0) < 0.1


@pytest.mark.parametrize("where", MOVED)
def test_a_site_changed_by_hand_is_named(
    where: str, specimen: LanguageModel, transcoders: DictionarySet
) -> None:
    moved = with_manifest(transcoders, results())
    moved[2].read_site, moved[2].write_site = MOVED[where]
    with pytest.raises(DictionaryError) as caught:
        check_fidelity(moved, specimen, "specimen", tokens=256)
    text = str(caught.value)
    assert "layer 2 of 'moved' leaves" in text
    assert "where 0.0085 with 12 is recorded" in text
    assert f"reads {MOVED[where][0]} and writes {MOVED[where][1]}" in text
    assert "--no-self-check" in text


def test_far_more_or_fewer_features_than_recorded_are_seen(
    specimen: LanguageModel, transcoders: DictionarySet
) -> None:
    for l0 in (2.0, 60.0):
        with pytest.raises(DictionaryError, match="wrong site"):
            check_fidelity(
                with_manifest(transcoders, results(l0=l0)), specimen, "specimen", tokens=256
            )


def test_nothing_is_measured_where_nothing_is_recorded(
    specimen: LanguageModel, transcoders: DictionarySet
) -> None:
    for nothing in ({}, {"layers": 3}, {"layers": [{"layer": 2}]}, {"layers": [5]}):
        assert check_fidelity(with_manifest(transcoders, nothing), specimen, "specimen") == []
    other_layer = {"layers": [{"layer": 1, "fvu": 0.1, "l0": 3}]}
    assert check_fidelity(with_manifest(transcoders, other_layer), specimen, "specimen") == []


def test_layers_of_a_cross_layer_transcoder_are_compared_by_what_they_write_together(
    specimen: LanguageModel,
) -> None:
    clt = tiny_set(specimen, ["clt"] * 4)
    clt.manifest = Manifest(kind="dictionaries", results=results())
    with pytest.raises(DictionaryError, match=r"of 'tiny' leaves .* the likely cause is a"):
        check_fidelity(clt, specimen, "specimen")


def test_figures_of_the_model_before_an_update_are_not_compared(
    transcoders: DictionarySet,
) -> None:
    updated = load_model("specimen:planted-strict-or")
    assert check_fidelity(transcoders, updated, "specimen", tokens=256) == []


def test_the_limit_grows_with_what_is_recorded() -> None:
    assert Recorded(fvu=0.0, l0=1).most_fvu == pytest.approx(0.1)
    assert Recorded(fvu=0.3, l0=1).most_fvu == pytest.approx(0.7)
    assert Recorded(fvu=0.8, l0=1).most_fvu == 1.0
    assert Recorded(fvu=2.0, l0=1).most_fvu == pytest.approx(4.1)  # it was useless already


def test_inputs_are_those_of_the_read_sites(
    specimen: LanguageModel, transcoders: DictionarySet
) -> None:
    values = read_inputs(transcoders, specimen, "specimen", tokens=64)
    assert {layer: value.shape for layer, value in values.items()} == dict.fromkeys(
        range(4), (64, specimen.d_model)
    )
    assert float(transcoders[2].encode(values[2]).l0().mean()) > 11
