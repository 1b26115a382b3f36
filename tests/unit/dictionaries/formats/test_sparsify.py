"""sparsify's folders, read against their arithmetic written out here, and written back the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import ModuleSite, Site
from pellucid.dictionaries import DictionarySet, convert
from pellucid.dictionaries.formats.format import Export
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.dictionaries.formats.sparsify import Sparsify
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.dictionaries import random_dictionary
from support.foreign_files import inputs, sparsify, topk
from support.tiny_dictionaries import tiny_set
from support.tiny_models import tiny_model


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    return load_model(tiny_model("llama"))


@pytest.mark.parametrize(("transcode", "skip"), [(True, False), (True, True), (False, False)])
def test_a_hookpoint_computes_what_it_did(transcode: bool, skip: bool, tmp_path: Path) -> None:
    folder, t = sparsify(tmp_path / "layers.2.mlp", transcode=transcode, skip=skip)
    x = inputs().double()
    t = {name: tensor.double() for name, tensor in t.items()}
    read = x if transcode else x - t["b_dec"]
    expected = topk(5)(read @ t["encoder.weight"].T + t["encoder.bias"]) @ t["W_dec"] + t["b_dec"]
    if skip:
        expected = expected + x @ t["W_skip"].T
    found = load_dictionaries(folder)[2].double()
    torch.testing.assert_close(found(x), expected, rtol=0, atol=1e-6)


def test_the_number_of_latents_may_be_a_multiple_of_the_width(tmp_path: Path) -> None:
    folder, _ = sparsify(tmp_path / "layers.0.mlp", num_latents=0, expansion_factor=3)
    assert load_dictionaries(folder)[0].num_features == 24


def test_hookpoints_are_sites_where_the_model_is_known(
    llama: LanguageModel, tmp_path: Path
) -> None:
    sparsify(tmp_path / "layers.1.mlp")
    sparsify(tmp_path / "layers.2", transcode=False)
    (tmp_path / "config.json").write_text(json.dumps({"model": "some/llama"}))
    unplaced = load_dictionaries(tmp_path)
    assert unplaced[1].read_site == ModuleSite("layers.1.mlp", "input")
    assert unplaced.manifest is not None
    assert unplaced.manifest.config["model_name"] == "some/llama"
    placed = load_dictionaries(tmp_path, model=llama)
    assert placed[1].read_site == Site("mlp_in", 1)
    assert placed[1].write_site == Site("mlp_out", 1)
    assert placed[2].read_site == placed[2].write_site == Site("resid_post", 2)


def test_what_a_post_norm_changes_is_not_what_is_added(tmp_path: Path) -> None:
    """In Gemma 2 the MLP's output is normed before it is added: another place than mlp_out."""
    gemma = load_model(tiny_model("gemma2"))
    folder, _ = sparsify(tmp_path / "layers.1.mlp")
    placed = load_dictionaries(folder, model=gemma)[1]
    assert placed.read_site == Site("mlp_in", 1)
    assert placed.write_site == ModuleSite("model.layers.1.mlp", "output")
    ours = tiny_set(gemma, ["plt", None, None])
    with pytest.raises(DictionaryError, match="not those of one module in this model"):
        convert(ours, tmp_path / "out", "sparsify", model=gemma)


@pytest.mark.parametrize(("family", "hookpoint"), [("llama", "layers.1.mlp"), ("gpt2", "h.1.mlp")])
@pytest.mark.parametrize("kind", ["plt", "skip"])
def test_an_export_is_exact(family: str, hookpoint: str, kind: str, tmp_path: Path) -> None:
    model = load_model(tiny_model(family))
    ours = tiny_set(model, [None, kind, kind])
    done = convert(ours, tmp_path / "out", "sparsify", model=model)
    assert (done.lossless, done.max_abs_diff, done.layers) == (True, 0.0, (1, 2))
    assert (tmp_path / "out" / hookpoint / "sae.safetensors").is_file()
    read = load_dictionaries(tmp_path / "out", model=model)
    for layer in (1, 2):
        assert read[layer].read_site == ours[layer].read_site
        for name, tensor in ours[layer].tensors().items():
            assert torch.equal(read[layer].tensors()[name], tensor), name


def test_sites_need_the_model_and_module_paths_do_not(llama: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="depends on the model; give the model"):
        convert(tiny_set(llama, ["plt", None, None]), tmp_path / "out", "sparsify")
    folder, _ = sparsify(tmp_path / "layers.1.mlp")
    convert(load_dictionaries(folder), tmp_path / "again", "sparsify")
    assert (tmp_path / "again" / "layers.1.mlp" / "cfg.json").is_file()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation": "groupmax"}, DictionaryError, "picks one feature of each group"),
        ({"num_latents": 25}, CheckpointError, r"of shape \(24, 8\) where \(25, 8\) fits"),
        ({"k": 0}, CheckpointError, "k = 0; it should be a whole number above 0"),
        ({"d_in": "8"}, CheckpointError, "d_in = '8'; it should be a whole number"),
        ({"skip_connection": True}, CheckpointError, "disagree about a skip connection"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder, _ = sparsify(tmp_path / "layers.1.mlp", **changes)
    with pytest.raises(error, match=message):
        load_dictionaries(folder)


def test_two_hookpoints_of_a_layer_are_not_chosen_between(tmp_path: Path) -> None:
    sparsify(tmp_path / "layers.1.mlp")
    sparsify(tmp_path / "layers.1", transcode=False)
    with pytest.raises(DictionaryError, match=r"several dictionaries of layer 1 .*give the folder"):
        load_dictionaries(tmp_path)
    sparsify(tmp_path / "run" / "embed_in", transcode=False)
    with pytest.raises(DictionaryError, match="belongs to no layer"):
        load_dictionaries(tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "activation", "message"),
    [
        ("transcoder", "relu", "sparsify has no ReLU, the activation of layer 1"),
        ("transcoder", "topk", "has one width, and layer 1 reads width 11 and writes width 7"),
        ("clt", "topk", "sparsify holds sae or transcoder dictionaries, and layer 1 is a clt"),
        ("sae", "topk", "sparsify knows a module's input and output"),
    ],
)
def test_what_sparsify_does_not_have_is_refused(
    kind: str, activation: str, message: str, llama: LanguageModel, tmp_path: Path
) -> None:
    widths = {} if activation == "topk" else {"d_out": 11}
    original = random_dictionary(kind, activation, layer=1, **widths)
    with pytest.raises(DictionaryError, match=message):  # the writer alone: widths differ
        Sparsify().write(tmp_path, DictionarySet("a", {1: original}), Export(host=llama))


def test_what_an_output_adds_up_to(tmp_path: Path) -> None:
    """An SAE of a module's output goes back to the module it came from."""
    folder, tensors = sparsify(tmp_path / "layers.3.mlp", transcode=False)
    convert(load_dictionaries(folder), tmp_path / "out", "sparsify")
    read: Tensor = load_dictionaries(tmp_path / "out")[3].W_dec
    assert torch.equal(read, tensors["W_dec"])
