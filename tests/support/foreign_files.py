"""Files of other tools, written here by hand from their own keys, and what they compute.

Nothing of `pellucid.dictionaries.formats` is used: tensors are drawn, saved under the names that
each tool reads, and `reference_*` computes in float64 what the tool would.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

F, D, D_OUT = 24, 8, 6
Function = Callable[[Tensor], Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Numbers that depend on shape and seed alone."""
    key = 1000 * seed + sum(size * 7**place for place, size in enumerate(shape))
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key))


def inputs(n: int = 50, width: int = D) -> Tensor:
    return draw(n, width, seed=99)


def save(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], *names: str) -> Path:
    """A folder of two files: weights and configuration, of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, configuration = names
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / weights)
    (folder / configuration).write_text(json.dumps(config))
    return folder


def relu(pre: Tensor) -> Tensor:
    return pre.clamp_min(0)


def topk(k: int) -> Function:
    """The k largest of the positive ones."""

    def function(pre: Tensor) -> Tensor:
        kept = pre >= pre.topk(k, dim=1).values[:, -1:]
        return (pre * kept).clamp_min(0)

    return function


def signed_topk(k: int) -> Function:
    """The k largest, negative ones too."""
    return lambda pre: pre * (pre >= pre.topk(k, dim=1).values[:, -1:])


def above(threshold: Tensor) -> Function:
    """pre where it exceeds the threshold."""
    return lambda pre: pre * (pre > threshold.double())


def relu_above(threshold: Tensor) -> Function:
    """max(pre, 0) where pre exceeds the threshold."""
    return lambda pre: pre.clamp_min(0) * (pre > threshold.double())


def saelens(
    folder: Path, architecture: str, *, d_out: int = D, seed: int = 0, **changes: Any
) -> tuple[Path, dict[str, Tensor]]:
    """A dictionary as SAELens 6 saves one; `changes` are of its configuration."""
    tensors = {
        "W_enc": draw(D, F, seed=seed),
        "b_enc": draw(F, seed=seed),
        "W_dec": draw(F, d_out, seed=seed + 1),
        "b_dec": draw(d_out, seed=seed),
    }
    if "jumprelu" in architecture:
        tensors["threshold"] = draw(F, seed=seed + 2).abs() - 0.2
    if architecture == "gated":
        del tensors["b_enc"]
        tensors |= {
            "b_gate": draw(F, seed=seed + 3),
            "b_mag": draw(F, seed=seed + 4),
            "r_mag": 0.3 * draw(F, seed=seed + 5),
        }
    if "skip" in architecture:
        tensors["W_skip"] = draw(d_out, D, seed=seed + 6)
    transcodes = "transcoder" in architecture
    metadata = {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_head_index": None}
    metadata["hook_name"] = "blocks.2.mlp.hook_in" if transcodes else "blocks.2.hook_resid_post"
    if transcodes:
        metadata["hook_name_out"] = "blocks.2.hook_mlp_out"
    config = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata | changes.pop("metadata", {}),
    } | changes
    if transcodes:
        config["d_out"] = d_out
    return save(folder, tensors, config, "sae_weights.safetensors", "cfg.json"), tensors


def sparsify(
    folder: Path, *, transcode: bool = True, skip: bool = False, seed: int = 0, **changes: Any
) -> tuple[Path, dict[str, Tensor]]:
    """A hookpoint as sparsify 1.3 saves one."""
    tensors = {
        "encoder.weight": draw(F, D, seed=seed),
        "encoder.bias": draw(F, seed=seed),
        "W_dec": draw(F, D, seed=seed + 1),
        "b_dec": draw(D, seed=seed),
    }
    if skip:
        tensors["W_skip"] = draw(D, D, seed=seed + 2)
    config = {
        "activation": "topk",
        "expansion_factor": 3,
        "normalize_decoder": not transcode,
        "num_latents": 0,
        "k": 5,
        "multi_topk": False,
        "skip_connection": skip,
        "transcode": transcode,
        "d_in": D,
        "a_field_of_a_later_version": 1,
    } | changes
    return save(folder, tensors, config, "sae.safetensors", "cfg.json"), tensors


def plt_set(
    folder: Path,
    *,
    layers: int = 3,
    activation: str = "",
    threshold: bool = False,
    skip: bool = False,
    hooks: tuple[str, str] = ("mlp.hook_in", "hook_mlp_out"),
) -> tuple[Path, list[dict[str, Tensor]]]:
    """A transcoder set as circuit-tracer reads one; `activation` is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for layer in range(layers):
        tensors = {
            "W_enc": draw(F, D, seed=layer),
            "W_dec": draw(F, D, seed=layer + 10),
            "b_enc": draw(F, seed=layer),
            "b_dec": draw(D, seed=layer),
        }
        if threshold:
            tensors["activation_function.threshold"] = draw(F, seed=layer + 20) * 0.5
        if skip:
            tensors["W_skip"] = draw(D, D, seed=layer + 30)
        save_file(tensors, folder / f"layer_{layer}.safetensors")
        files.append(tensors)
    (folder / "config.yaml").write_text(
        "model_kind: transcoder_set\nmodel_name: some/model\n"
        f"feature_input_hook: {hooks[0]}\nfeature_output_hook: {hooks[1]}\n{activation}\n"
    )
    return folder, files


def clt_folder(
    folder: Path, *, layers: int = 3, threshold: bool = False, hook: str = "hook_resid_mid"
) -> tuple[Path, dict[str, Tensor]]:
    """A cross-layer transcoder as circuit-tracer reads one."""
    folder.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Tensor] = {}
    for layer in range(layers):
        encoder = {
            f"W_enc_{layer}": draw(F, D, seed=layer),
            f"b_enc_{layer}": draw(F, seed=layer),
            f"b_dec_{layer}": draw(D, seed=layer),
        }
        if threshold:
            encoder[f"threshold_{layer}"] = draw(F, seed=layer + 20).abs()
        decoder = {f"W_dec_{layer}": draw(F, layers - layer, D, seed=layer + 10)}
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
        everything |= encoder | decoder
    (folder / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\nmodel_name: some/model\n"
        f"feature_input_hook: {hook}\nfeature_output_hook: hook_mlp_out\n"
    )
    return folder, everything


def llamascopium_sae(
    folder: Path, *, same_site: bool = False, norms: bool = False, **changes: Any
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """An SAE or a transcoder as llamascopium 2.0 saves one."""
    reads = "blocks.1.hook_resid_post" if same_site else "blocks.1.mlp.hook_in"
    writes = reads if same_site else "blocks.1.hook_mlp_out"
    tensors = {
        "W_E": draw(D, F),
        "b_E": draw(F),
        "W_D": draw(F, D, seed=1),
        "b_D": draw(D),
    }
    config = {
        "sae_type": "sae",
        "d_model": D,
        "expansion_factor": F / D,
        "use_decoder_bias": True,
        "act_fn": "relu",
        "norm_activation": "dataset-wise" if norms else "inference",
        "sparsity_include_decoder_norm": False,
        "top_k": 5,
        "hook_point_in": reads,
        "hook_point_out": writes,
    } | changes
    if config["act_fn"] == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = 0.5 * draw(F, seed=2)
    if norms:
        tensors[f"dataset_average_activation_norm.{reads}"] = torch.tensor(7.0)
        if not same_site:
            tensors[f"dataset_average_activation_norm.{writes}"] = torch.tensor(2.5)
    return save(folder, tensors, config, "sae_weights.safetensors", "config.json"), tensors, config
