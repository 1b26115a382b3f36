"""Gemma Scope 2 transcoders: `config.json` and `params.safetensors`, a folder a layer.

Source: the published files as SAELens 6 and circuit-tracer 0.5 read them. w_enc is [d, F];
`affine_skip_connection` is [d_in, d_out]. Places are sides of Hugging Face modules. A file of its
cross-layer transcoders is one layer, whose w_dec [F, L, d] has a slot for every layer of the model;
no slot below the layer that is read is used.
"""

import json
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries.activations import JumpReLU
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.files import Fields, folders_with, read_json, read_tensors
from pellucid.dictionaries.formats.format import Export, WritableFormat, model_name_of, set_of
from pellucid.dictionaries.formats.gemma_scope import jumprelu_transcoder, width_name
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import site_of_hf_hook
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import as_jumprelu

CONFIG, WEIGHTS = "config.json", "params.safetensors"
ARCHITECTURE = "jump_relu"
_SKIP = "affine_skip_connection"


@final
class GemmaScope2(WritableFormat):
    """JumpReLU transcoders of one width, with or without a skip path."""

    name = "gemma-scope-2"
    recognised_by = f"{CONFIG} beside {WEIGHTS}"
    patterns: ClassVar = (f"*{CONFIG}", f"*{WEIGHTS}")
    one_of_many = True

    def detect(self, folder: Path) -> bool:
        """By the names of its files."""
        return bool(folders_with(folder, WEIGHTS, CONFIG))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """The modules that it names say which site they are."""
        found, names = {}, set()
        for home in folders_with(folder, WEIGHTS, CONFIG):
            config = Fields(home / CONFIG, read_json(home / CONFIG))
            names.add(config.word("model_name"))
            found[home] = _read(home, config, host)
        model = names.pop() if len(names) == 1 else None
        return set_of(folder, found, model_name=model)

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """One folder a layer."""
        model = model_name_of(dictionaries, export.host)
        for layer, dictionary in dictionaries.dictionaries.items():
            tensors = _tensors(dictionary, layer, export)
            affine = _SKIP in tensors
            home = folder / f"layer_{layer}_{width_name(dictionary)}{'_affine' if affine else ''}"
            config = {
                "architecture": ARCHITECTURE,
                "model_name": model,
                "hf_hook_point_in": f"model.layers.{layer}.pre_feedforward_layernorm.output",
                "hf_hook_point_out": f"model.layers.{layer}.post_feedforward_layernorm.output",
                "width": dictionary.num_features,
                "affine_connection": affine,
            }
            write_tensors(home / WEIGHTS, tensors)
            (home / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_provenance(folder, dictionaries)


def parts_of(tensors: Fields) -> Parts:
    """The parts of one file.

    Raises:
        CheckpointError: not of this format.
    """
    encoder = tensors.matrix("w_enc", None, None)
    width, num_features = encoder.shape
    return _parts(tensors, encoder, tensors.matrix("w_dec", num_features, width))


def cross_layer_parts_of(tensors: Fields, layer: int, n_layers: int) -> Parts:
    """The parts of one layer of a cross-layer transcoder; a skip path is to its own layer.

    Raises:
        CheckpointError: not of this format.
    """
    encoder = tensors.matrix("w_enc", None, None)
    width, num_features = encoder.shape
    decoder = tensors.matrix("w_dec", num_features, n_layers, width)
    return _parts(tensors, encoder, decoder[:, layer:])


def _parts(tensors: Fields, encoder: Tensor, W_dec: Tensor) -> Parts:
    """The parts of one file, whose last tensors are taken."""
    width, num_features = encoder.shape
    skip = tensors.matrix(_SKIP, width, width).T if _SKIP in tensors.values else None
    parts = Parts(
        W_enc=encoder.T,
        b_enc=tensors.matrix("b_enc", num_features),
        W_dec=W_dec,
        b_dec=tensors.matrix("b_dec", width),
        W_skip=skip,
        activation=JumpReLU(tensors.matrix("threshold", num_features)),
    )
    tensors.check_empty()
    return parts


def _read(home: Path, config: Fields, host: HostModel | None) -> Dictionary:
    architecture = config.maybe("architecture")
    if architecture != ARCHITECTURE:
        raise DictionaryError(
            f"{config.path} has the architecture {architecture!r}; this format has {ARCHITECTURE}"
        )
    parts = parts_of(Fields(home / WEIGHTS, read_tensors(home / WEIGHTS)))
    if config.flag("affine_connection", False) != (parts.W_skip is not None):
        raise CheckpointError(
            f"{config.path} and {home / WEIGHTS} disagree about an affine connection; restore "
            "them from a copy"
        )
    read = site_of_hf_hook(config.text("hf_hook_point_in"), host)
    output = config.word("hf_hook_point_out")
    if output is None:
        return parts.reading_raw().build(read, read)
    return parts.build(read, site_of_hf_hook(output, host))


def _check_names(layer: int, host: HostModel | None) -> None:
    """The modules that this format names must be those of the model."""
    if host is None:
        return
    place = host.point(Site("mlp_out", layer)).path
    if not place.endswith(f"layers.{layer}.post_feedforward_layernorm"):
        raise DictionaryError(
            f"gemma-scope-2 names the modules of Gemma 3, and what the MLP adds in {host.name} is "
            f"{place}; choose another format"
        )


def _tensors(dictionary: Dictionary, layer: int, export: Export) -> dict[str, Tensor]:
    jumprelu_transcoder(dictionary, layer, "gemma-scope-2")
    _check_names(layer, export.host)
    tensors = {
        "w_enc": dictionary.W_enc.T,
        "w_dec": dictionary.W_dec,
        "b_enc": dictionary.b_enc,
        "b_dec": dictionary.b_dec,
        "threshold": as_jumprelu(dictionary, layer, export, "gemma-scope-2").threshold,
    }
    if dictionary.W_skip is not None:
        tensors[_SKIP] = dictionary.W_skip.T
    return tensors
