"""circuit-tracer's cross-layer transcoders: `config.yaml`, `W_enc_{i}` and `W_dec_{i}.safetensors`.

Source: the keys and the arithmetic of circuit-tracer 0.5. `W_dec_{i}` is [F, L - i, d]: slot j
writes j layers above the one that is read. A configuration may list files of Gemma Scope 2 instead.
"""

from pathlib import Path
from typing import ClassVar, final

import torch
import yaml
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.circuit_tracer import (
    CONFIG,
    hooks_record,
    is_kind,
    listed_files,
)
from pellucid.dictionaries.formats.files import Fields, natural, read_tensors, read_yaml
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    every_layer,
    named_set,
    no_skip,
    of_kind,
)
from pellucid.dictionaries.formats.gemma_scope_2 import cross_layer_parts_of
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import hook_of_layer, placed
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import as_jumprelu

KIND = "cross_layer_transcoder"


@final
class CircuitTracerCLT(WritableFormat):
    """ReLU and JumpReLU cross-layer transcoders; only listed files have a skip path."""

    name = "circuit-tracer-clt"
    recognised_by = f"{CONFIG} with model_kind {KIND}"
    patterns: ClassVar = (CONFIG, "W_enc_*.safetensors", "W_dec_*.safetensors")

    def detect(self, folder: Path) -> bool:
        """By the kind in its configuration."""
        return is_kind(folder, KIND)

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Every layer from 0 on, at the configuration's two hooks."""
        config = Fields(folder / CONFIG, read_yaml(folder / CONFIG))
        reads, writes = config.text("feature_input_hook"), config.text("feature_output_hook")
        layers = {
            layer: placed(parts, hook_of_layer(reads, layer), hook_of_layer(writes, layer), host)
            for layer, parts in enumerate(_read_layers(folder, config))
        }
        model = config.maybe("model_name")
        return named_set(folder, layers, model_name=None if model is None else str(model))

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """Two files a layer and the configuration."""
        for layer, dictionary in dictionaries.dictionaries.items():
            of_kind(dictionary, layer, (CrossLayerTranscoder,), self.name)
            no_skip(dictionary, layer, self.name)
        every_layer(dictionaries, export.host, self.name)
        thresholds = _thresholds(dictionaries, export)
        for layer, dictionary in dictionaries.dictionaries.items():
            encoder: dict[str, Tensor] = {
                f"W_enc_{layer}": dictionary.W_enc,
                f"b_enc_{layer}": dictionary.b_enc,
                f"b_dec_{layer}": dictionary.b_dec,
            }
            if layer in thresholds:
                encoder[f"threshold_{layer}"] = thresholds[layer]
            write_tensors(folder / f"W_enc_{layer}.safetensors", encoder)
            decoder = to_every_later_layer(dictionary, layer, len(dictionaries))
            write_tensors(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": decoder})
        text = yaml.safe_dump(hooks_record(dictionaries, KIND, export.host), sort_keys=False)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        write_provenance(folder, dictionaries)


def to_every_later_layer(dictionary: Dictionary, layer: int, n_layers: int) -> Tensor:
    """The decoder with a slot for each layer from its own to the last, zero where it had none.

    Raises:
        DictionaryError: it writes past the last layer.
    """
    missing = n_layers - layer - dictionary.W_dec.shape[1]
    if missing < 0:
        raise DictionaryError(
            f"layer {layer} writes to {dictionary.W_dec.shape[1]} layers, and only "
            f"{n_layers - layer} are left of {n_layers}; export the whole set"
        )
    W_dec = dictionary.W_dec.detach()
    return torch.nn.functional.pad(W_dec, (0, 0, 0, missing))


def _read_layers(folder: Path, config: Fields) -> list[Parts]:
    listed = listed_files(folder, config)
    if listed is not None:
        return [
            cross_layer_parts_of(Fields(path, read_tensors(path)), layer, len(listed))
            for layer, path in enumerate(listed)
        ]
    files = sorted(folder.glob("W_enc_*.safetensors"), key=natural)
    if not files:
        raise CheckpointError(f"{folder} lacks W_enc_0.safetensors; restore it from a copy")
    return [_read_layer(folder, layer, len(files)) for layer in range(len(files))]


def _read_layer(folder: Path, layer: int, n_layers: int) -> Parts:
    path = folder / f"W_enc_{layer}.safetensors"
    encoder = Fields(path, read_tensors(path))
    path = folder / f"W_dec_{layer}.safetensors"
    decoder = Fields(path, read_tensors(path))
    W_enc = encoder.matrix(f"W_enc_{layer}", None, None)
    num_features, width = W_enc.shape
    activation: Activation = ReLU()
    if f"threshold_{layer}" in encoder.values:
        activation = JumpReLU(encoder.matrix(f"threshold_{layer}", num_features))
    parts = Parts(
        W_enc=W_enc,
        b_enc=encoder.matrix(f"b_enc_{layer}", num_features),
        W_dec=decoder.matrix(f"W_dec_{layer}", num_features, n_layers - layer, width),
        b_dec=encoder.matrix(f"b_dec_{layer}", width),
        activation=activation,
    )
    encoder.check_empty()
    decoder.check_empty()
    return parts


def _thresholds(dictionaries: DictionarySet, export: Export) -> dict[int, Tensor]:
    """Thresholds of every layer, or of none: the format has one activation for all."""
    if all(isinstance(dictionary.activation, ReLU) for dictionary in dictionaries):
        return {}
    return {
        layer: as_jumprelu(dictionary, layer, export, "circuit-tracer-clt").threshold
        for layer, dictionary in dictionaries.dictionaries.items()
    }
