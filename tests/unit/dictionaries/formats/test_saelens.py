"""SAELens files, read against their arithmetic written out here, and written back the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import ModuleSite, Site
from pellucid.dictionaries import SAE, DictionarySet, JumpReLU, Transcoder, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from support.dictionaries import random_dictionary
from support.foreign_files import (
    Function,
    above,
    inputs,
    relu,
    relu_above,
    saelens,
    topk,
)

BEFORE_GAIN = "blocks.2.ln2.hook_normalized"


def computed(t: dict[str, Tensor], activation: Function, *, centred: bool) -> Tensor:
    """What SAELens computes, on `inputs()`."""
    x = inputs().double()
    t = {name: tensor.double() for name, tensor in t.items()}
    read = x - t["b_dec"] if centred else x
    output = activation(read @ t["W_enc"] + t["b_enc"]) @ t["W_dec"] + t["b_dec"]
    return output + x @ t["W_skip"].T if "W_skip" in t else output


def loaded_output(folder: Path) -> Tensor:
    return load_dictionaries(folder)[2].double()(inputs().double())


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal but for one rounding of the folded weights to float32."""
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
@pytest.mark.parametrize("centred", [True, False])
def test_an_sae_computes_what_it_did(architecture: str, centred: bool, tmp_path: Path) -> None:
    folder, tensors = saelens(tmp_path, architecture, apply_b_dec_to_input=centred, k=5)
    activation = {"standard": relu, "topk": topk(5), "jumprelu": None}[architecture]
    activation = activation or relu_above(tensors["threshold"])
    assert_same(loaded_output(folder), computed(tensors, activation, centred=centred))
    dictionary = load_dictionaries(folder)[2]
    assert isinstance(dictionary, SAE)
    assert dictionary.read_site == Site("resid_post", 2)


def test_a_gated_sae_is_a_jumprelu_one(tmp_path: Path) -> None:
    folder, t = saelens(tmp_path, "gated")
    x = inputs().double()
    t = {name: tensor.double() for name, tensor in t.items()}
    projected = (x - t["b_dec"]) @ t["W_enc"]
    gate = projected + t["b_gate"] > 0
    size = (projected * t["r_mag"].exp() + t["b_mag"]).clamp_min(0)
    assert int((gate & (size == 0)).sum()) > 0
    assert int((~gate & (size > 0)).sum()) > 0
    assert_same(loaded_output(folder), (gate * size) @ t["W_dec"] + t["b_dec"])
    assert isinstance(load_dictionaries(folder)[2].activation, JumpReLU)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("jumps", [False, True])
def test_a_transcoder_computes_what_it_did(skip: bool, jumps: bool, tmp_path: Path) -> None:
    name = ("jumprelu_" if jumps else "") + ("skip_" if skip else "") + "transcoder"
    folder, tensors = saelens(tmp_path, name, d_out=6)
    activation = relu_above(tensors["threshold"]) if jumps else relu
    assert_same(loaded_output(folder), computed(tensors, activation, centred=False))
    dictionary = load_dictionaries(folder)[2]
    assert isinstance(dictionary, Transcoder)
    assert (dictionary.read_site, dictionary.write_site) == (Site("mlp_in", 2), Site("mlp_out", 2))


def test_selection_by_decoder_norm_is_folded_in(tmp_path: Path) -> None:
    folder, t = saelens(tmp_path, "topk", k=5, rescale_acts_by_decoder_norm=True)
    norms = t["W_dec"].double().norm(dim=1)
    x = inputs().double() - t["b_dec"].double()
    codes = topk(5)((x @ t["W_enc"].double() + t["b_enc"].double()) * norms)
    plain = topk(5)(x @ t["W_enc"].double() + t["b_enc"].double())
    assert ((codes > 0) != (plain > 0)).any()
    assert_same(loaded_output(folder), codes / norms @ t["W_dec"].double() + t["b_dec"].double())


def test_a_factor_of_the_inputs_is_folded_in(tmp_path: Path) -> None:
    folder, t = saelens(
        tmp_path,
        "jumprelu",
        normalize_activations="expected_average_only_in",
        norm_scaling_factor=0.25,
    )
    t = {name: tensor.double() for name, tensor in t.items()}
    pre = (0.25 * inputs().double() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    expected = (relu_above(t["threshold"])(pre) @ t["W_dec"] + t["b_dec"]) / 0.25
    assert_same(loaded_output(folder), expected)


def test_a_file_of_before_version_6_is_read(tmp_path: Path) -> None:
    folder, tensors = saelens(tmp_path, "standard")
    (folder / "cfg.json").write_text(
        '{"hook_point": "blocks.2.hook_resid_pre", "d_in": 8, "d_sae": 24, "model_name": "gpt2",'
        ' "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "dtype": "torch.float32"}'
    )
    assert_same(loaded_output(folder), computed(tensors, topk(3), centred=True))
    assert load_dictionaries(folder)[2].read_site == Site("resid_pre", 2)


def test_the_name_of_hugging_face_is_preferred(tmp_path: Path) -> None:
    """SAELens names what Gemma's MLPs read `hook_mlp_in`, which is another place."""
    metadata = {
        "hook_name": "blocks.2.hook_mlp_in",
        "hf_hook_name": "model.layers.2.pre_feedforward_layernorm.output",
        "hf_hook_name_out": "model.layers.2.post_feedforward_layernorm.output",
    }
    folder, _ = saelens(tmp_path / "a", "jumprelu_transcoder", metadata=metadata)
    assert load_dictionaries(folder)[2].read_site == Site("mlp_in", 2)
    folder, _ = saelens(
        tmp_path / "b", "transcoder", metadata={"hook_name": "blocks.2.hook_mlp_in"}
    )
    assert load_dictionaries(folder)[2].read_site == Site("resid_mid", 2)


def test_a_module_of_hugging_face_stays_one_without_the_model(tmp_path: Path) -> None:
    metadata = {"hook_name": "model.layers.2", "model_class_name": "AutoModelForCausalLM"}
    folder, _ = saelens(tmp_path, "standard", metadata=metadata)
    assert load_dictionaries(folder)[2].read_site == ModuleSite("model.layers.2", "output")


def test_a_folder_of_folders_is_a_set(tmp_path: Path) -> None:
    for layer in (10, 9):
        hook = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        saelens(tmp_path / f"layer_{layer}", "standard", metadata=hook)
    loaded = load_dictionaries(tmp_path)
    assert loaded.layers == [9, 10]
    assert loaded.manifest is not None
    assert loaded.manifest.config["model_name"] == "gpt2"


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("batchtopk", {}, "'batchtopk', whose selection depends on the batch"),
        ("temporal", {}, "'temporal', which pellucid does not know"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalises each token"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "does not hold"),
        ("standard", {"reshape_activations": "hook_z"}, "all attention heads as one vector"),
        ("standard", {"activation_fn": "tanh-relu"}, "the activation 'tanh-relu'"),
        ("transcoder", {"apply_b_dec_to_input": True}, "SAELens itself refuses"),
        (
            "standard",
            {"metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": True}}},
            "loaded with center_writing_weights, whose residual stream is not that of",
        ),
        ("standard", {"metadata": {"hook_head_index": 3}}, "about one attention head"),
        ("standard", {"metadata": {"hook_name": "blocks.2.attn.hook_z"}}, "is no site of pellucid"),
        ("standard", {"metadata": {"hook_name": BEFORE_GAIN}}, "has no such site"),
        (
            "transcoder",
            {"metadata": {"hook_name": BEFORE_GAIN}},
            r"before the norm's gain.*give the model \(--model\)",
        ),
    ],
)  # fmt: skip
def test_what_pellucid_cannot_represent_is_refused(
    architecture: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder, _ = saelens(tmp_path, architecture, **changes)
    with pytest.raises(DictionaryError, match=message):
        load_dictionaries(folder)


def test_a_transcoder_that_does_not_say_where_it_writes_is_refused(tmp_path: Path) -> None:
    folder, _ = saelens(tmp_path, "transcoder", metadata={"hook_name_out": None})
    with pytest.raises(CheckpointError, match="does not say where the transcoder writes"):
        load_dictionaries(folder)


@pytest.mark.parametrize(
    ("kind", "activation", "architecture"),
    [
        ("sae", "relu", "standard"),
        ("sae", "topk", "topk"),
        ("sae", "jumprelu", "jumprelu"),
        ("transcoder", "relu", "transcoder"),
        ("transcoder", "jumprelu", "jumprelu_transcoder"),
        ("skip-transcoder", "relu", "skip_transcoder"),
        ("skip-transcoder", "jumprelu", "jumprelu_skip_transcoder"),
    ],
)
def test_an_export_is_exact_and_says_what_it_is(
    kind: str, activation: str, architecture: str, tmp_path: Path
) -> None:
    original = random_dictionary(kind, activation, layer=4)
    done = convert(DictionarySet("a", {4: original}), tmp_path / "out", "saelens")
    assert (done.lossless, done.max_abs_diff) == (True, 0.0)
    home = tmp_path / "out" / "blocks.4.mlp.hook_in"
    tensors = load_file(home / "sae_weights.safetensors")
    assert torch.equal(tensors["W_enc"], original.W_enc.T)
    config = (home / "cfg.json").read_text()
    assert f'"architecture": "{architecture}"' in config
    assert '"sae_lens_version": "6.0.0"' in config
    read = load_dictionaries(tmp_path / "out")[4]
    for name, tensor in original.tensors().items():
        assert torch.equal(read.tensors()[name], tensor), name


def test_a_threshold_below_0_is_refused(tmp_path: Path) -> None:
    """SAELens takes max(pre, 0); ours would be active below 0."""
    original = random_dictionary("sae", "jumprelu")
    original.activation.threshold[3] = -0.5
    with pytest.raises(DictionaryError, match=r"gives no negative activation.*-0\.5"):
        convert(DictionarySet("a", {0: original}), tmp_path / "out", "saelens")
    assert not (tmp_path / "out").exists()


def test_topk_transcoders_are_lost_on_request_alone(tmp_path: Path) -> None:
    original = random_dictionary("transcoder", "topk")
    topks = DictionarySet("a", {0: original})
    with pytest.raises(DictionaryError, match=r"has no TopK.*pass --lossy"):
        convert(topks, tmp_path / "out", "saelens")
    with pytest.raises(DictionaryError, match=r"give the model and a text \(--model and --data\)"):
        convert(topks, tmp_path / "out", "saelens", allow_loss=True)
    x = inputs(400, 11)
    done = convert(topks, tmp_path / "out", "saelens", allow_loss=True, inputs={0: x})
    assert not done.lossless
    assert "JumpReLU with one threshold" in done.lost[0]
    assert done.max_abs_diff > 0.1
    read = load_dictionaries(tmp_path / "out")[0]
    assert abs(float(read.encode(x).l0().mean()) - 5) < 0.01
    threshold = read.activation.tensors()["threshold"]
    pre = above(threshold)(original.pre_activations(x).double())
    torch.testing.assert_close(read.encode(x).dense().double(), pre)
