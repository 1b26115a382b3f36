"""llamascopium's folders, against their arithmetic written out here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import SAE, DictionarySet, JumpReLU, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from support.dictionaries import random_dictionary
from support.foreign_files import D, F, above, draw, inputs, llamascopium_sae, relu, save, topk


def computed(t: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """What llamascopium computes on `inputs()`: scaled, selected, unscaled."""
    t = {name: tensor.double() for name, tensor in t.items()}
    norms = [t.get(f"dataset_average_activation_norm.{config[h]}") for h in HOOKS]
    into, out = (1.0 if norm is None else D**0.5 / norm for norm in norms)
    activation = {"relu": relu, "topk": topk(5)}.get(config["act_fn"])
    if activation is None:
        activation = above(t["activation_function.log_jumprelu_threshold"].exp())
    pre = (inputs().double() * into) @ t["W_E"] + t["b_E"]
    lengths = t["W_D"].norm(dim=1) if config["sparsity_include_decoder_norm"] else 1.0
    return (activation(pre * lengths) / lengths @ t["W_D"] + t["b_D"]) / out


HOOKS = ("hook_point_in", "hook_point_out")


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("same_site", [False, True])
def test_it_computes_what_it_did(
    activation: str, norms: bool, by_length: bool, same_site: bool, tmp_path: Path
) -> None:
    folder, tensors, config = llamascopium_sae(
        tmp_path,
        same_site=same_site,
        norms=norms,
        act_fn=activation,
        sparsity_include_decoder_norm=by_length,
    )
    loaded = load_dictionaries(folder)[1]
    assert isinstance(loaded, SAE) == same_site
    found = loaded.double()(inputs().double())
    torch.testing.assert_close(found, computed(tensors, config), rtol=1e-6, atol=5e-6)


def test_a_feature_that_writes_nothing_never_fires(tmp_path: Path) -> None:
    folder, tensors, config = llamascopium_sae(tmp_path, sparsity_include_decoder_norm=True)
    tensors["W_D"][3] = 0
    save(folder, tensors, config, "sae_weights.safetensors", "config.json")
    codes = load_dictionaries(folder)[1].encode(inputs()).dense()
    assert not codes[:, 3].any()


def clt(folder: Path, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    n = 3
    tensors = {"W_E": draw(n, D, F), "b_E": draw(n, F)}
    for target in range(n):
        tensors[f"W_D.{target}"] = draw(target + 1, F, D, seed=target)
        tensors[f"b_D.{target}"] = draw(D, seed=target)
    config = {
        "sae_type": "clt",
        "d_model": D,
        "expansion_factor": F / D,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": False,
        "hook_points_in": [f"blocks.{i}.hook_resid_mid" for i in range(n)],
        "hook_points_out": [f"blocks.{i}.hook_mlp_out" for i in range(n)],
    } | changes
    tensors["activation_function.log_jumprelu_threshold"] = draw(n, F, seed=7)
    for i in range(n):
        for name, norm in (
            (f"blocks.{i}.hook_resid_mid", 5 + i),
            (f"blocks.{i}.hook_mlp_out", 2 + i),
        ):
            tensors[f"dataset_average_activation_norm.{name}"] = torch.tensor(float(norm))
    save(folder, tensors, config, "sae_weights.safetensors", "config.json")
    return {name: tensor.double() for name, tensor in tensors.items()}, config


def test_a_cross_layer_transcoder_is_turned_from_targets_to_sources(tmp_path: Path) -> None:
    t, _ = clt(tmp_path)
    loaded = load_dictionaries(tmp_path)
    x = inputs().double()
    codes = []
    for layer in range(3):
        pre = x * D**0.5 / (5 + layer) @ t["W_E"][layer] + t["b_E"][layer]
        threshold = t["activation_function.log_jumprelu_threshold"][layer].exp()
        codes.append(above(threshold)(pre))
    for target in range(3):
        written = sum(codes[source] @ t[f"W_D.{target}"][source] for source in range(target + 1))
        expected = (written + t[f"b_D.{target}"]) / (D**0.5 / (2 + target))
        found = torch.zeros_like(expected)
        for source in range(target + 1):
            dictionary = loaded[source].double()
            assert dictionary.read_site == Site("resid_mid", source)
            found += dictionary.decode(dictionary.encode(x), target - source)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
@pytest.mark.parametrize("kind", ["transcoder", "sae", "clt"])
def test_an_export_reads_back_the_same(kind: str, activation: str, tmp_path: Path) -> None:
    made = {
        layer: random_dictionary(kind, activation, d_out=11, seed=layer, layer=layer)
        for layer in range(3 if kind == "clt" else 1)
    }
    if kind == "clt":
        for layer in (1, 2):
            made[layer].W_dec = torch.nn.Parameter(made[layer].W_dec[:, : 3 - layer].contiguous())
    for dictionary in made.values():
        if isinstance(dictionary.activation, JumpReLU):
            dictionary.activation.threshold.add_(0.01)
        if kind == "sae":
            dictionary.read_site = dictionary.write_site = Site("resid_post", 0)
    done = convert(DictionarySet("a", made), tmp_path / "out", "llamascopium")
    assert done.lossless
    assert done.max_abs_diff <= (2e-5 if kind == "sae" else 0)
    home = tmp_path / "out" if kind == "clt" else next((tmp_path / "out").glob("blocks*"))
    tensors = load_file(home / "sae_weights.safetensors")
    if kind == "clt":
        assert torch.equal(tensors["W_D.2"][1], made[1].W_dec[:, 1])
    else:
        assert torch.equal(tensors["W_E"], made[0].W_enc.T)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_activation": "token-wise"}, r"normalises each token or batch \('token-wise'\)"),
        ({"norm_activation": "batch-wise"}, "'batch-wise'"),
        ({"use_glu_encoder": True}, "a gated linear unit for an encoder"),
        ({"sae_type": "lorsa"}, "is a 'lorsa'"),
        ({"act_fn": "batchtopk"}, "'batchtopk', which selects over a batch or over layers"),
        ({"hook_point_in": "blocks.1.attn.hook_z"}, "'blocks.1.attn.hook_z' is no site"),
    ],
)
def test_what_pellucid_cannot_represent_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder, _, _ = llamascopium_sae(tmp_path, **changes)
    with pytest.raises(DictionaryError, match=message):
        load_dictionaries(folder)


def test_scales_that_are_missing_are_named(tmp_path: Path) -> None:
    folder, _, _ = llamascopium_sae(tmp_path, norm_activation="dataset-wise")
    with pytest.raises(CheckpointError, match=r"lacks the mean norm at blocks\.1\.mlp\.hook_in"):
        load_dictionaries(folder)


@pytest.mark.parametrize(
    ("kind", "activation", "message"),
    [
        ("skip-transcoder", "relu", "llamascopium has no skip path, and layer 0"),
        ("transcoder", "signed-topk", "llamascopium has no TopK of either sign"),
        ("transcoder", "jumprelu", "keeps the logarithm of thresholds, and layer 0 has one of -1"),
    ],
)
def test_what_llamascopium_does_not_have_is_refused(
    kind: str, activation: str, message: str, tmp_path: Path
) -> None:
    original = random_dictionary(kind, activation, d_out=11)
    if activation == "jumprelu":
        original.activation.threshold[0] = -1
    with pytest.raises(DictionaryError, match=message):
        convert(DictionarySet("a", {0: original}), tmp_path / "out", "llamascopium")
    wide = random_dictionary(kind, "relu")
    with pytest.raises(DictionaryError, match="llamascopium has one width"):
        convert(DictionarySet("a", {0: wide}), tmp_path / "out", "llamascopium")
