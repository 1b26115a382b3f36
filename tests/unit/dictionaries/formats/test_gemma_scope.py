"""Gemma Scope 1 and 2, against their arithmetic written out here, in a running Gemma."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import DictionarySet, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.dictionaries import random_dictionary
from support.foreign_files import F, above, draw, inputs, save
from support.tiny_dictionaries import relu, tiny_set
from support.tiny_models import D_MODEL, tiny_model

FIRST = Path("layer_1") / "width_16k" / "average_l0_42"


@pytest.fixture(scope="module")
def gemma2() -> LanguageModel:
    return load_model(tiny_model("gemma2"))


@pytest.fixture(scope="module")
def gemma3() -> LanguageModel:
    return load_model(tiny_model("gemma3"))


def write_params(home: Path, seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    home.mkdir(parents=True)
    tensors = {
        "W_enc": draw(D_MODEL, F, seed=seed),
        "W_dec": draw(F, D_MODEL, seed=seed),
        "b_enc": draw(F, seed=seed),
        "b_dec": draw(D_MODEL, seed=seed),
        "threshold": draw(F, seed=seed + 1) * 0.5,
    }
    np.savez(home / "params.npz", **{name: t.numpy() for name, t in tensors.items()} | changes)
    return {name: tensor.double() for name, tensor in tensors.items()}


def test_the_first_reads_before_the_gain(gemma2: LanguageModel, tmp_path: Path) -> None:
    t = write_params(tmp_path / FIRST)
    loaded = load_dictionaries(tmp_path, model=gemma2)
    assert loaded.layers == [1]
    assert (loaded[1].read_site, loaded[1].write_site) == (Site("mlp_in", 1), Site("mlp_out", 1))
    residual, mlp_in = _values(gemma2)
    eps = gemma2.module.config.rms_norm_eps
    normalised = residual / (residual.square().mean(-1, keepdim=True) + eps).sqrt()
    pre = normalised @ t["W_enc"] + t["b_enc"]
    codes = above(t["threshold"])(pre)
    assert (codes < 0).any()  # a threshold below 0 lets negative ones through
    found = loaded[1](mlp_in)
    torch.testing.assert_close(found.double(), codes @ t["W_dec"] + t["b_dec"], rtol=0, atol=2e-4)


def _values(model: LanguageModel) -> tuple[Tensor, Tensor]:
    """The residual that layer 1's MLP norm reads, and what the MLP reads."""
    sites = [Site("resid_mid", 1), Site("mlp_in", 1)]
    values = model.activations(torch.arange(4, 40)[None], sites)
    return values[sites[0]][0].double(), values[sites[1]][0]


def test_without_the_model_the_first_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path / FIRST)
    with pytest.raises(DictionaryError, match=r"the norm's gain.*give the model \(--m"):
        load_dictionaries(tmp_path)


def test_the_first_goes_back_before_the_gain(gemma2: LanguageModel, tmp_path: Path) -> None:
    t = write_params(tmp_path / "a" / FIRST)
    loaded = load_dictionaries(tmp_path / "a", model=gemma2)
    done = convert(loaded, tmp_path / "b", "gemma-scope", model=gemma2)
    assert done.lossless
    assert done.max_abs_diff < 2e-6
    written = np.load(tmp_path / "b" / "layer_1" / "width_24" / "params.npz")
    for name, tensor in t.items():
        np.testing.assert_allclose(written[name], tensor.numpy(), rtol=3e-7)
    assert np.array_equal(written["threshold"], t["threshold"].float().numpy())


def test_a_gain_of_0_is_refused(tmp_path: Path) -> None:
    module = tiny_model("gemma2")
    module.model.layers[1].pre_feedforward_layernorm.weight.data[7] = -1.0  # Gemma adds 1
    write_params(tmp_path / FIRST)
    with pytest.raises(DictionaryError, match="a gain of 0 at coordinate 7"):
        load_dictionaries(tmp_path, model=load_model(module))


def test_a_folder_must_say_its_layer_and_what_it_is_of(tmp_path: Path) -> None:
    write_params(tmp_path / "alone")
    with pytest.raises(CheckpointError, match="does not say which layer it is of"):
        load_dictionaries(tmp_path / "alone")
    write_params(tmp_path / "models--google--gemma-scope-2b-pt-res" / FIRST)
    with pytest.raises(DictionaryError, match="gemma-scope-2b-pt-res, the SAEs of one site"):
        load_dictionaries(tmp_path / "models--google--gemma-scope-2b-pt-res")


def test_two_of_a_layer_are_not_chosen_between(gemma2: LanguageModel, tmp_path: Path) -> None:
    write_params(tmp_path / FIRST)
    write_params(tmp_path / FIRST.with_name("average_l0_90"))
    with pytest.raises(DictionaryError, match=r"several dictionaries of layer 1"):
        load_dictionaries(tmp_path, model=gemma2)


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    write_params(tmp_path / FIRST, extra=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"cannot be read .*pickle"):
        load_dictionaries(tmp_path)


def test_a_set_of_circuit_tracer_may_list_them(gemma2: LanguageModel, tmp_path: Path) -> None:
    home = Path("layer_0") / "width_16k" / "average_l0_1"
    write_params(tmp_path / home)
    write_params(tmp_path / FIRST, seed=4)
    (tmp_path / "config.yaml").write_text(
        "model_kind: transcoder_set\nmodel_name: a\nfeature_input_hook: ln2.hook_normalized\n"
        f"feature_output_hook: hook_mlp_out\ntranscoders:\n- {home}/params.npz\n"
        f"- {FIRST}/params.npz\n"
    )
    listed = load_dictionaries(tmp_path, model=gemma2)
    assert listed.layers == [0, 1]
    alone = load_dictionaries(tmp_path / FIRST, model=gemma2)
    assert torch.equal(alone[1].W_enc, listed[1].W_enc)


def write_second(home: Path, *, skip: bool, **changes: Any) -> dict[str, Tensor]:
    tensors = {
        "w_enc": draw(D_MODEL, F),
        "w_dec": draw(F, D_MODEL, seed=1),
        "b_enc": draw(F),
        "b_dec": draw(D_MODEL),
        "threshold": draw(F, seed=1).abs(),
    }
    if skip:
        tensors["affine_skip_connection"] = draw(D_MODEL, D_MODEL)
    config = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-1b-it",
        "hf_hook_point_in": "model.layers.1.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.1.post_feedforward_layernorm.output",
        "affine_connection": skip,
        "l0": 100,
    } | changes
    save(home, tensors, config, "params.safetensors", "config.json")
    return {name: tensor.double() for name, tensor in tensors.items()}


@pytest.mark.parametrize("skip", [False, True])
def test_the_second_computes_what_it_did(skip: bool, gemma3: LanguageModel, tmp_path: Path) -> None:
    t = write_second(tmp_path / "layer_1_width_16k_l0_small", skip=skip)
    x = inputs(40, D_MODEL).double()
    expected = above(t["threshold"])(x @ t["w_enc"] + t["b_enc"]) @ t["w_dec"] + t["b_dec"]
    if skip:
        expected = expected + x @ t["affine_skip_connection"]
    for model in (None, gemma3):
        loaded = load_dictionaries(tmp_path, model=model)
        sites = (loaded[1].read_site, loaded[1].write_site)
        assert sites == (Site("mlp_in", 1), Site("mlp_out", 1))
        torch.testing.assert_close(loaded[1].double()(x), expected, rtol=0, atol=1e-9)
    # the names in the file are those of modules at these very places
    name = "model.layers.1.{}_feedforward_layernorm"
    assert gemma3.point(Site("mlp_out", 1)).path == name.format("post")
    norm = gemma3.block(1).mlp_norm
    assert norm is not None
    assert norm.path == name.format("pre")


@pytest.mark.parametrize("skip", [False, True])
def test_a_round_trip_of_the_second_changes_no_bit(skip: bool, tmp_path: Path) -> None:
    write_second(tmp_path / "a" / "layer_1", skip=skip)
    done = convert(load_dictionaries(tmp_path / "a"), tmp_path / "b", "gemma-scope-2")
    assert (done.lossless, done.max_abs_diff) == (True, 0.0)
    home = tmp_path / "b" / ("layer_1_width_24_affine" if skip else "layer_1_width_24")
    before = tmp_path / "a" / "layer_1" / "params.safetensors"
    assert (home / "params.safetensors").read_bytes() == before.read_bytes()
    assert json.loads((home / "config.json").read_text())["affine_connection"] is skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "topk"}, DictionaryError, "the architecture 'topk'; this format has"),
        ({"affine_connection": True}, CheckpointError, "disagree about an affine connection"),
        ({"hf_hook_point_in": "layers.1"}, DictionaryError, "is no side of a module"),
        ({"hf_hook_point_in": 3}, CheckpointError, "hf_hook_point_in = 3; it should be text"),
    ],
)
def test_what_does_not_fit_the_second_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    write_second(tmp_path, skip=False, **changes)
    with pytest.raises(error, match=message):
        load_dictionaries(tmp_path)


@pytest.mark.parametrize("skip", [False, True])
def test_a_cross_layer_transcoder_of_the_second(skip: bool, tmp_path: Path) -> None:
    """Listed by circuit-tracer's configuration: w_dec has a slot for every layer of the model."""
    layers, names = 3, []
    for layer in range(layers):
        tensors = {
            "w_enc": draw(D_MODEL, F, seed=layer),
            "w_dec": draw(F, layers, D_MODEL, seed=layer),
            "b_enc": draw(F, seed=layer),
            "b_dec": draw(D_MODEL, seed=layer),
            "threshold": draw(F, seed=layer + 9).abs(),
        }
        if skip:
            tensors["affine_skip_connection"] = draw(D_MODEL, D_MODEL, seed=layer)
        names.append(f"params_layer_{layer}.safetensors")
        save_file(tensors, tmp_path / names[-1])
    (tmp_path / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\nmodel_name: a\nfeature_input_hook: mlp.hook_in\n"
        f"feature_output_hook: hook_mlp_out\ntranscoders: [{', '.join(names)}]\n"
    )
    loaded = load_dictionaries(tmp_path)
    assert [len(loaded[layer].write_sites) for layer in range(3)] == [3, 2, 1]
    assert torch.equal(loaded[1].W_dec, draw(F, layers, D_MODEL, seed=1)[:, 1:])
    assert torch.equal(loaded[2].W_enc, draw(D_MODEL, F, seed=2).T)
    x = torch.randn(5, D_MODEL)
    if not skip:
        assert loaded[1].skip(x) is None
        return
    affine = draw(D_MODEL, D_MODEL, seed=1)
    torch.testing.assert_close(loaded[1].skip(x), x @ affine)
    convert(loaded, tmp_path / "ours", "pellucid")
    assert torch.equal(load_dictionaries(tmp_path / "ours")[1].W_skip, affine.T)
    with pytest.raises(DictionaryError, match="circuit-tracer-clt has no skip path, and layer 0"):
        convert(loaded, tmp_path / "theirs", "circuit-tracer-clt")


def test_what_neither_has_is_refused(
    gemma2: LanguageModel, gemma3: LanguageModel, tmp_path: Path
) -> None:
    def converted(to: str, kind: str, model: LanguageModel) -> None:
        ours = tiny_set(model, [None, kind, None], relu())
        convert(ours, tmp_path / "out", to, model=model)

    with pytest.raises(DictionaryError, match="gemma-scope has no skip path, and layer 1"):
        converted("gemma-scope", "skip", gemma2)
    for name in ("gemma-scope", "gemma-scope-2"):
        with pytest.raises(DictionaryError, match=f"{name} holds transcoder dictionaries"):
            converted(name, "sae", gemma3)
    elsewhere = random_dictionary("transcoder", "relu", d_out=11)
    elsewhere.read_site = Site("resid_mid", 0)
    with pytest.raises(DictionaryError, match="from mlp_in to mlp_out, and layer 0 reads resid_m"):
        convert(DictionarySet("a", {0: elsewhere}), tmp_path / "out", "gemma-scope-2")
    llama = load_model(tiny_model("llama"))
    with pytest.raises(DictionaryError, match="names the modules of Gemma 3"):
        converted("gemma-scope-2", "plt", llama)
    assert not (tmp_path / "out").exists()
