"""circuit-tracer's sets and cross-layer transcoders, against their arithmetic written out here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import Dictionary, DictionarySet, SignedTopK, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.dictionaries.formats.parts import Parts
from pellucid.models.load import load_model
from support.dictionaries import random_dictionary
from support.foreign_files import (
    D,
    F,
    Function,
    above,
    clt_folder,
    draw,
    inputs,
    plt_set,
    relu,
    signed_topk,
    topk,
)
from support.tiny_models import tiny_model

ACTIVATIONS: dict[str, tuple[str, bool]] = {
    "relu": ("", False),
    "named relu": ("activation: relu", False),
    "jumprelu": ("", True),
    "topk": ("activation: topk\nk: 5", False),
}


def function(name: str, tensors: dict[str, Tensor]) -> Function:
    if name == "topk":
        return signed_topk(5)
    return above(tensors["activation_function.threshold"]) if name == "jumprelu" else relu


def square_set(
    kind: str = "transcoder", activation: str = "jumprelu", layers: int = 3
) -> DictionarySet:
    return DictionarySet(
        "ours",
        {
            layer: random_dictionary(kind, activation, d_out=11, layer=layer, seed=layer)
            for layer in range(layers)
        },
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_set_computes_what_it_did(name: str, skip: bool, tmp_path: Path) -> None:
    text, threshold = ACTIVATIONS[name]
    folder, files = plt_set(tmp_path / "set", activation=text, threshold=threshold, skip=skip)
    loaded = load_dictionaries(folder)
    assert loaded.layers == [0, 1, 2]
    assert loaded.manifest is not None
    assert loaded.manifest.config["model_name"] == "some/model"
    x = inputs().double()
    for layer, raw in enumerate(files):
        t = {key: tensor.double() for key, tensor in raw.items()}
        expected = function(name, t)(x @ t["W_enc"].T + t["b_enc"]) @ t["W_dec"] + t["b_dec"]
        if skip:
            expected = expected + x @ t["W_skip"].T
        dictionary = loaded[layer].double()
        torch.testing.assert_close(dictionary(x), expected, rtol=0, atol=1e-9)
        assert dictionary.read_site == Site("mlp_in", layer)
        assert dictionary.write_site == Site("mlp_out", layer)


def test_topk_keeps_negative_ones_as_circuit_tracer_does(tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path / "set", activation="activation: topk\nk: 20")
    dictionary = load_dictionaries(folder)[0]
    assert isinstance(dictionary.activation, SignedTopK)
    codes = dictionary.encode(inputs())
    assert (codes.values < 0).any()
    assert (codes.l0() == 20).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_round_trip_changes_no_bit(name: str, tmp_path: Path) -> None:
    text, threshold = ACTIVATIONS[name]
    folder, _ = plt_set(tmp_path / "set", activation=text, threshold=threshold, skip=True)
    done = convert(load_dictionaries(folder), tmp_path / "out", "circuit-tracer")
    assert (done.lossless, done.max_abs_diff) == (True, 0.0)
    for layer in range(3):
        file = f"layer_{layer}.safetensors"
        before, after = folder / file, tmp_path / "out" / file
        assert before.read_bytes() == after.read_bytes()
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["feature_input_hook"] == "mlp.hook_in"
    assert config["model_name"] == "some/model"
    assert config.get("activation") == {"topk": "topk", "jumprelu": None}.get(name, "relu")


def test_a_cross_layer_transcoder_computes_what_it_did(tmp_path: Path) -> None:
    folder, t = clt_folder(tmp_path / "clt", threshold=True)
    loaded = load_dictionaries(folder)
    x = inputs().double()
    t = {key: tensor.double() for key, tensor in t.items()}
    for layer in range(3):
        codes = above(t[f"threshold_{layer}"])(x @ t[f"W_enc_{layer}"].T + t[f"b_enc_{layer}"])
        dictionary = loaded[layer].double()
        assert dictionary.read_site == Site("resid_mid", layer)
        assert dictionary.write_sites == tuple(Site("mlp_out", j) for j in range(layer, 3))
        found = dictionary.encode(x)
        for slot in range(3 - layer):
            expected = codes @ t[f"W_dec_{layer}"][:, slot]
            expected = expected + t[f"b_dec_{layer}"] if slot == 0 else expected
            torch.testing.assert_close(dictionary.decode(found, slot), expected, rtol=0, atol=1e-9)


def test_a_cross_layer_round_trip_changes_no_bit(tmp_path: Path) -> None:
    folder, _ = clt_folder(tmp_path / "clt", threshold=True)
    done = convert(load_dictionaries(folder), tmp_path / "out", "circuit-tracer-clt")
    assert (done.lossless, done.max_abs_diff) == (True, 0.0)
    for file in folder.glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def test_slots_that_a_feature_does_not_have_are_written_as_zeros(tmp_path: Path) -> None:
    ours = square_set("clt", "relu", layers=4)  # each writes to 3 layers
    ours = DictionarySet("ours", {0: ours[0], **{i: _shorter(ours, i) for i in (1, 2, 3)}})
    convert(ours, tmp_path / "out", "circuit-tracer-clt")
    read = load_dictionaries(tmp_path / "out")
    assert read[0].W_dec.shape == (37, 4, 11)
    assert not read[0].W_dec[:, 3].any()
    assert torch.equal(read[0].W_dec[:, :3], ours[0].W_dec)


def _shorter(ours: DictionarySet, layer: int) -> Dictionary:
    """Writing to no layer past the last."""
    parts = Parts.of(ours[layer])
    shorter = replace(parts, W_dec=parts.W_dec[:, : 4 - layer])
    return shorter.build(ours[layer].read_site, ours[layer].write_site)


def test_the_gain_is_folded_in_where_it_reads_before_it(tmp_path: Path) -> None:
    """In the running model: the tool's output on what the norm gives before its gain and bias."""
    for family in ("gpt2", "llama"):
        model = load_model(tiny_model(family))
        folder = tmp_path / family
        folder.mkdir()
        raw = []
        for layer in range(3):
            tensors = {
                "W_enc": draw(F, 32, seed=layer),
                "W_dec": draw(F, 32, seed=layer + 5),
                "b_enc": draw(F, seed=layer),
                "b_dec": draw(32, seed=layer),
                "W_skip": draw(32, 32, seed=layer),
            }
            save_file(tensors, folder / f"layer_{layer}.safetensors")
            raw.append({key: tensor.double() for key, tensor in tensors.items()})
        (folder / "config.yaml").write_text(
            "model_kind: transcoder_set\nmodel_name: a\nfeature_input_hook: ln2.hook_normalized\n"
            "feature_output_hook: hook_mlp_out\n"
        )
        loaded = load_dictionaries(folder, model=model)
        ids = torch.arange(4, 30)[None]
        for layer, t in enumerate(raw):
            sites = [Site("mlp_in", layer), Site("resid_mid", layer)]
            values = model.activations(ids, sites)
            residual = values[sites[1]][0].double()
            norm = model.block(layer).mlp_norm
            assert norm is not None
            normalised = norm.centre(residual) * norm.scale(residual)
            pre = normalised @ t["W_enc"].T + t["b_enc"]
            expected = relu(pre) @ t["W_dec"] + t["b_dec"] + normalised @ t["W_skip"].T
            found = loaded[layer](values[sites[0]][0])
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


def test_ours_keep_positive_features_alone_which_is_lost_on_request(tmp_path: Path) -> None:
    ours = square_set(activation="topk")
    with pytest.raises(DictionaryError, match=r"even where they are negative.*pass --lossy"):
        convert(ours, tmp_path / "out", "circuit-tracer")
    done = convert(ours, tmp_path / "out", "circuit-tracer", allow_loss=True)
    assert not done.lossless
    assert "its loader does not read the activation" in done.lost[0]
    x = inputs(20, 11)
    pre = ours[0].pre_activations(x)
    full = (pre > 0).sum(dim=1) >= 5
    assert full.any()
    found = load_dictionaries(tmp_path / "out")[0].encode(x).dense()
    torch.testing.assert_close(found[full], topk(5)(pre)[full])


def test_what_a_set_does_not_have_is_refused(tmp_path: Path) -> None:
    ours = square_set()
    one = ours.dictionaries
    cases = [
        ({0: one[0], 2: one[2]}, "lacks layer 1 of 3; train the missing layers"),
        (
            {0: one[0], 1: random_dictionary(d_out=11, layer=1, features=9)},
            "one number of features, and layer 0 of 'x' has 37, layer 1 9",
        ),
        ({0: random_dictionary(activation="relu")}, "one width, and layer 0 reads width 11"),
        ({0: random_dictionary("sae", "relu")}, "holds transcoder dictionaries.*is a sae"),
        ({0: random_dictionary("clt", "relu", d_out=11)}, "holds transcoder.*is a clt"),
        (
            {0: one[0], 1: random_dictionary("transcoder", "relu", d_out=11, layer=1)},
            r"one activation for all layers, and layer 0 has JumpReLU .*layer 1 ReLU",
        ),
    ]
    for dictionaries, message in cases:
        with pytest.raises(DictionaryError, match=message):
            convert(DictionarySet("x", dictionaries), tmp_path / "out", "circuit-tracer")
    with pytest.raises(DictionaryError, match="circuit-tracer-clt holds clt dictionaries"):
        convert(ours, tmp_path / "out", "circuit-tracer-clt")
    with pytest.raises(DictionaryError, match="circuit-tracer-clt has no TopK"):
        convert(square_set("clt", "topk", layers=1), tmp_path / "out", "circuit-tracer-clt")
    assert not (tmp_path / "out").exists()


def test_layers_that_read_at_different_places_are_refused(tmp_path: Path) -> None:
    ours = square_set()
    moved = dict(ours.dictionaries)
    moved[1].read_site = Site("resid_mid", 1)
    with pytest.raises(DictionaryError, match="layer 1 reads resid_mid@1 where layer 0 reads"):
        convert(DictionarySet("x", moved), tmp_path / "out", "circuit-tracer")


@pytest.mark.parametrize("missing", ["layer_0.safetensors", "layer_1.safetensors"])
def test_a_gap_is_found(missing: str, tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path / "set")
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=f"without a gap, and lacks {missing}"):
        load_dictionaries(folder)


def test_a_file_with_more_than_the_format_has_is_refused(tmp_path: Path) -> None:
    folder, files = plt_set(tmp_path / "set", layers=1)
    save_file(files[0] | {"k": torch.tensor([5.0])}, folder / "layer_0.safetensors")
    with pytest.raises(CheckpointError, match="has k, which pellucid does not know"):
        load_dictionaries(folder)
    plt_set(tmp_path / "other", activation="activation: gelu")
    with pytest.raises(DictionaryError, match="the activation 'gelu'"):
        load_dictionaries(tmp_path / "other")


@pytest.mark.parametrize(
    "entry",
    ["../secret.safetensors", "/etc/passwd", "a/../../x", "http://x/y", "file:///etc/passwd"],
)
def test_files_outside_the_folder_are_not_read(entry: str, tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path / "set", activation=f"transcoders: ['{entry}']")
    save_file({"W_enc": draw(F, D)}, tmp_path / "secret.safetensors")
    with pytest.raises(CheckpointError, match="names a file outside its folder"):
        load_dictionaries(folder)


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path / "set")
    (folder / "config.yaml").write_text(
        f"model_kind: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n"
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_dictionaries(folder)
    assert not (tmp_path / "made").exists()
