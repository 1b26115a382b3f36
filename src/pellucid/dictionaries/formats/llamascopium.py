"""Llamascopium (Language-Model-SAEs): `config.json` and `sae_weights.safetensors`.

Source: the keys and the arithmetic of llamascopium 2.0. W_E is [d, F] and reads x itself. Unless
`norm_activation` is "inference", inputs and outputs are scaled to a mean norm of sqrt(d), by mean
norms that are in the file; `sparsity_include_decoder_norm` selects by pre-activation times decoder
norm. A cross-layer transcoder is one folder: `W_D.{i}` [i + 1, F, d] holds what layers 0 to i write
to layer i.
"""

import json
import math
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.circuit_tracer_clt import to_every_later_layer
from pellucid.dictionaries.formats.files import Fields, folders_with, read_json, read_tensors
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    every_layer,
    named_set,
    no_skip,
    set_of,
    square_width,
)
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts, describe, same_activation
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import hook_name, hook_of_name, placed
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import not_held
from pellucid.dictionaries.sae import SAE

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
_LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"
_NORM = "dataset_average_activation_norm."


@final
class Llamascopium(WritableFormat):
    """ReLU, TopK and JumpReLU SAEs, transcoders and cross-layer transcoders of one width."""

    name = "llamascopium"
    recognised_by = f"{CONFIG} beside {WEIGHTS}"
    patterns: ClassVar = (f"*{CONFIG}", f"*{WEIGHTS}")

    def detect(self, folder: Path) -> bool:
        """By the names of its files."""
        return bool(folders_with(folder, WEIGHTS, CONFIG))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Scales and decoder norms are folded into the weights."""
        found = {}
        for home in folders_with(folder, WEIGHTS, CONFIG):
            config = Fields(home / CONFIG, read_json(home / CONFIG))
            tensors = Fields(home / WEIGHTS, read_tensors(home / WEIGHTS))
            _check_config(config)
            if config.maybe("sae_type", "sae") == "clt":
                return named_set(folder, _read_clt(config, tensors, host))
            found[home] = _read(config, tensors, host)
        return set_of(folder, found)

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """One folder a layer, named by the hook it reads; a cross-layer transcoder is one."""
        for layer, dictionary in dictionaries.dictionaries.items():
            square_width(dictionary, layer, self.name)
            no_skip(dictionary, layer, self.name)
        if any(isinstance(dictionary, CrossLayerTranscoder) for dictionary in dictionaries):
            every_layer(dictionaries, export.host, self.name)
            tensors, config = _written_clt(dictionaries)
            _save(folder, tensors, config)
        else:
            for layer, dictionary in dictionaries.dictionaries.items():
                tensors, config = _written(dictionary, layer)
                _save(folder / hook_name(dictionary.read_site), tensors, config)
        write_provenance(folder, dictionaries)


def _check_config(config: Fields) -> None:
    """Refuse what depends on a token's or a batch's own norm, or has another encoder."""
    norm = config.word("norm_activation", "dataset-wise")
    config.values["norm_activation"] = norm
    if norm not in ("inference", "dataset-wise"):
        raise DictionaryError(
            f"{config.path} normalises each token or batch ({norm!r}) by its own norm, which no "
            "weight can hold; pellucid cannot represent it"
        )
    for name in ("sparsity_include_decoder_norm", "use_decoder_bias"):
        config.values[name] = config.flag(name, True)
    if config.flag("use_glu_encoder", False):
        raise DictionaryError(
            f"{config.path} has a gated linear unit for an encoder; pellucid's encoders are linear"
        )
    kind = config.word("sae_type", "sae")
    config.values["sae_type"] = kind
    if kind not in ("sae", "clt"):
        raise DictionaryError(
            f"{config.path} is a {kind!r}; pellucid reads its SAEs, transcoders and cross-layer "
            "transcoders"
        )


def _read(config: Fields, tensors: Fields, host: HostModel | None) -> Dictionary:
    width = config.count("d_model")
    encoder = tensors.matrix("W_E", width, None)
    num_features = encoder.shape[1]
    parts = Parts(
        W_enc=encoder.T,
        b_enc=tensors.matrix("b_E", num_features),
        W_dec=tensors.matrix("W_D", num_features, width),
        b_dec=_decoder_bias(config, tensors, "b_D", width),
        activation=_activation(config, tensors, num_features),
    )
    names = config.text("hook_point_in"), config.text("hook_point_out")
    scales = _scales(config, tensors, width, names)
    tensors.check_empty()
    parts = _folded(config, parts, scales[0], scales[1:])
    if names[0] == names[1]:
        parts = parts.reading_raw()
    return placed(parts, hook_of_name(names[0]), hook_of_name(names[1]), host)


def _read_clt(config: Fields, tensors: Fields, host: HostModel | None) -> dict[int, Dictionary]:
    width = config.count("d_model")
    reads, writes = (_names(config, name) for name in ("hook_points_in", "hook_points_out"))
    n_layers = len(reads)
    if len(writes) != n_layers:
        raise CheckpointError(f"{config.path} reads {n_layers} hooks and writes {len(writes)}")
    encoder = tensors.matrix("W_E", n_layers, width, None)
    num_features = encoder.shape[2]
    b_enc = tensors.matrix("b_E", n_layers, num_features)
    decoders = [
        tensors.matrix(f"W_D.{layer}", layer + 1, num_features, width) for layer in range(n_layers)
    ]
    biases = [_decoder_bias(config, tensors, f"b_D.{layer}", width) for layer in range(n_layers)]
    activation = _activation(config, tensors, num_features, layers=n_layers)
    scales = _scales(config, tensors, width, [*reads, *writes])
    tensors.check_empty()
    layers = {}
    for layer in range(n_layers):
        parts = Parts(
            W_enc=encoder[layer].T,
            b_enc=b_enc[layer],
            W_dec=torch.stack([decoders[target][layer] for target in range(layer, n_layers)], 1),
            b_dec=biases[layer],
            activation=JumpReLU(activation.threshold[layer])
            if isinstance(activation, JumpReLU)
            else activation,
        )
        parts = _folded(config, parts, scales[layer], scales[n_layers + layer :])
        layers[layer] = placed(parts, hook_of_name(reads[layer]), hook_of_name(writes[layer]), host)
    return layers


def _names(config: Fields, name: str) -> list[str]:
    """A list of hooks, one a layer."""
    hooks = config.take(name)
    if not isinstance(hooks, list) or not hooks or not all(isinstance(h, str) for h in hooks):
        raise CheckpointError(f"{config.path} has {name} = {hooks!r}; it should list hooks")
    return hooks


def _folded(config: Fields, parts: Parts, inputs: float, outputs: list[float]) -> Parts:
    if config.values["sparsity_include_decoder_norm"]:
        parts = parts.selected_by_norm()
    return parts if inputs == 1 and set(outputs) == {1} else parts.scaled(inputs, outputs)


def _decoder_bias(config: Fields, tensors: Fields, name: str, width: int) -> Tensor:
    if config.values["use_decoder_bias"]:
        return tensors.matrix(name, width)
    return torch.zeros(width)


def _activation(
    config: Fields, tensors: Fields, num_features: int, layers: int | None = None
) -> Activation:
    name = str(config.word("act_fn", "relu")).lower()
    if name == "relu":
        return ReLU()
    if name == "topk":
        return TopK(config.count("top_k"))
    if name == "jumprelu":
        shape = (num_features,) if layers is None else (layers, num_features)
        return JumpReLU(tensors.matrix(_LOG_THRESHOLD, *shape).double().exp().float())
    raise DictionaryError(
        f"{config.path} has the activation {name!r}, which selects over a batch or over layers; "
        "pellucid's activations select at one token and layer"
    )


def _scales(config: Fields, tensors: Fields, width: int, hooks: Any) -> list[float]:
    """What the values at each hook are multiplied by before anything is computed."""
    norms = {name: tensors.maybe(_NORM + name) for name in dict.fromkeys(hooks)}
    if config.values["norm_activation"] == "inference":
        return [1.0 for _ in hooks]
    for name, norm in norms.items():
        if norm is None or norm.numel() != 1 or float(norm) <= 0:
            raise CheckpointError(
                f"{tensors.path} lacks the mean norm at {name} that {CONFIG} scales by; restore "
                "it from a copy"
            )
    return [math.sqrt(width) / float(norms[name]) for name in hooks]


def _written(dictionary: Dictionary, layer: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    reads = hook_name(dictionary.read_site)
    b_enc = dictionary.b_enc.detach()
    if isinstance(dictionary, SAE):  # which subtracts b_dec from its input
        shift = dictionary.W_enc.double() @ dictionary.b_dec.double()
        b_enc = (b_enc.double() - shift).to(b_enc.dtype)
    tensors = {
        "W_E": dictionary.W_enc.T,
        "b_E": b_enc,
        "W_D": dictionary.W_dec,
        "b_D": dictionary.b_dec,
    }
    config = _config(dictionary, layer) | {
        "sae_type": "sae",
        "hook_point_in": reads,
        "hook_point_out": hook_name(dictionary.write_site),
    }
    if isinstance(dictionary.activation, JumpReLU):
        tensors[_LOG_THRESHOLD] = _log_threshold(dictionary.activation, layer)
    return tensors, config


def _written_clt(dictionaries: DictionarySet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    layers, n_layers = dictionaries.dictionaries, len(dictionaries)
    for layer, dictionary in layers.items():
        if not isinstance(dictionary, CrossLayerTranscoder) or not same_activation(
            dictionary.activation, layers[0].activation
        ):
            raise DictionaryError(
                "llamascopium has one kind and one activation for all layers of a cross-layer "
                f"transcoder, and layer {layer} is a {dictionary.kind} with "
                f"{describe(dictionary.activation)}"
            )
    decoders = [to_every_later_layer(layers[layer], layer, n_layers) for layer in layers]
    tensors = {
        "W_E": torch.stack([layers[layer].W_enc.detach().T for layer in layers]),
        "b_E": torch.stack([layers[layer].b_enc.detach() for layer in layers]),
    }
    for target in layers:
        tensors[f"W_D.{target}"] = torch.stack(
            [decoders[source][:, target - source] for source in range(target + 1)]
        )
        tensors[f"b_D.{target}"] = layers[target].b_dec
    if isinstance(layers[0].activation, JumpReLU):
        tensors[_LOG_THRESHOLD] = torch.stack(
            [_log_threshold(layers[layer].activation, layer) for layer in layers]
        )
    config = _config(layers[0], 0) | {
        "sae_type": "clt",
        "hook_points_in": [hook_name(layers[layer].read_site) for layer in layers],
        "hook_points_out": [hook_name(layers[layer].write_site) for layer in layers],
    }
    return tensors, config


def _config(dictionary: Dictionary, layer: int) -> dict[str, Any]:
    activation = dictionary.activation
    if not isinstance(activation, TopK | ReLU | JumpReLU):
        raise not_held(activation, layer, "llamascopium")
    config: dict[str, Any] = {
        "d_model": dictionary.d_in,
        "expansion_factor": _expansion(dictionary),
        "use_decoder_bias": True,
        "act_fn": activation.name,
        "norm_activation": "inference",
        "sparsity_include_decoder_norm": False,
    }
    return config | ({"top_k": activation.k} if isinstance(activation, TopK) else {})


def _expansion(dictionary: Dictionary) -> float:
    """The factor f for which int(d f), as the tool computes it, is the number of features."""
    factor = dictionary.num_features / dictionary.d_in
    if int(dictionary.d_in * factor) < dictionary.num_features:
        factor = math.nextafter(factor, math.inf)
    return factor


def _log_threshold(activation: Activation, layer: int) -> Tensor:
    assert isinstance(activation, JumpReLU)
    threshold = activation.threshold.detach()
    if bool((threshold <= 0).any()):
        raise DictionaryError(
            f"llamascopium keeps the logarithm of thresholds, and layer {layer} has one of "
            f"{float(threshold.min()):g}"
        )
    return threshold.double().log().to(threshold.dtype)


def _save(home: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    write_tensors(home / WEIGHTS, tensors)
    (home / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
