"""circuit-tracer's sets of transcoders: `config.yaml` and `layer_{i}.safetensors`.

Source: the keys and the arithmetic of circuit-tracer 0.5. Its JumpReLU is pre where pre exceeds the
threshold; its TopK keeps the k largest values of either sign. Hooks are named inside a block, one
pair for all layers. A configuration may list files elsewhere instead, as for Gemma Scope.
"""

import os
from pathlib import Path
from typing import Any, ClassVar, final

import yaml

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, SignedTopK, TopK
from pellucid.dictionaries.base import ACTIVATION_PREFIX, Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats import gemma_scope, gemma_scope_2, hub
from pellucid.dictionaries.formats.files import Fields, natural, read_tensors, read_yaml
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    every_layer,
    model_name_of,
    named_set,
    of_kind,
    one_site,
)
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts, describe, same_activation
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import hook_name, hook_of_layer, placed
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import not_held
from pellucid.dictionaries.transcoder import Transcoder

CONFIG, KIND = "config.yaml", "transcoder_set"
THRESHOLD = f"{ACTIVATION_PREFIX}threshold"


@final
class CircuitTracer(WritableFormat):
    """ReLU, JumpReLU and signed TopK transcoders of every layer, with or without a skip path."""

    name = "circuit-tracer"
    recognised_by = f"{CONFIG} with model_kind {KIND}"
    patterns: ClassVar = (CONFIG, "layer_*.safetensors")

    def detect(self, folder: Path) -> bool:
        """By the kind in its configuration."""
        return is_kind(folder, KIND)

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Every layer from 0 on, at the configuration's two hooks."""
        config = Fields(folder / CONFIG, read_yaml(folder / CONFIG))
        reads, writes = config.text("feature_input_hook"), config.text("feature_output_hook")
        layers = {}
        for layer, path in enumerate(_files(folder, config)):
            parts = _read_file(path, config)
            layers[layer] = placed(
                parts, hook_of_layer(reads, layer), hook_of_layer(writes, layer), host
            )
        model = config.maybe("model_name")
        return named_set(folder, layers, model_name=None if model is None else str(model))

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """One file a layer and the configuration; TopK is lost or refused."""
        every_layer(dictionaries, export.host, self.name)
        for layer, dictionary in dictionaries.dictionaries.items():
            of_kind(dictionary, layer, (Transcoder,), self.name)
        activation = _one_activation(dictionaries, export)
        for layer, dictionary in dictionaries.dictionaries.items():
            write_tensors(folder / f"layer_{layer}.safetensors", _tensors(dictionary))
        record = hooks_record(dictionaries, KIND, export.host) | activation
        text = yaml.safe_dump(record, sort_keys=False)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        write_provenance(folder, dictionaries)


def is_kind(folder: Path, kind: str) -> bool:
    """Whether a folder has a configuration of this `model_kind`."""
    path = folder / CONFIG
    return path.is_file() and read_yaml(path).get("model_kind") == kind


def hooks_record(dictionaries: DictionarySet, kind: str, host: HostModel | None) -> dict[str, Any]:
    """What the configurations of sets and of cross-layer transcoders have in common."""
    reads = {layer: d.read_site for layer, d in dictionaries.dictionaries.items()}
    writes = {layer: d.write_site for layer, d in dictionaries.dictionaries.items()}
    names = [
        {layer: hook_name(site, full=False) for layer, site in sites.items()}
        for sites in (reads, writes)
    ]
    return {
        "model_kind": kind,
        "model_name": model_name_of(dictionaries, host),
        "feature_input_hook": one_site(reads, names[0], "reads"),
        "feature_output_hook": one_site(writes, names[1], "writes"),
    }


def _files(folder: Path, config: Fields) -> list[Path]:
    """The file of each layer: those the configuration lists, or `layer_{i}.safetensors`."""
    listed = listed_files(folder, config)
    if listed is None:
        found = sorted(folder.glob("layer_*.safetensors"), key=natural)
        wanted = [folder / f"layer_{layer}.safetensors" for layer in range(len(found))]
        if not found or found != wanted:
            missing = next((path.name for path in wanted if path not in found), wanted and "")
            raise CheckpointError(
                f"{folder} should hold layer_0.safetensors and so on without a gap, and lacks "
                f"{missing or 'all of them'}; restore it from a copy"
            )
        return found
    return listed


def listed_files(folder: Path, config: Fields) -> list[Path] | None:
    """The files that a configuration lists, one a layer; None where it lists none.

    Raises:
        CheckpointError: it lists something else, or a file outside the folder.
    """
    listed = config.maybe("transcoders")
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise CheckpointError(f"{config.path} has transcoders = {listed!r}; it should list files")
    return [_listed_file(folder, entry, config.path) for entry in listed]


def _listed_file(folder: Path, entry: str, config: Path) -> Path:
    """A file of the hub, or one inside the folder; nothing else on this machine."""
    if entry.startswith(hub.SCHEME):
        return hub.download_file(entry)
    inside = os.path.normpath(entry)
    if Path(inside).is_absolute() or inside.startswith("..") or "://" in entry:
        raise CheckpointError(
            f"{config} names a file outside its folder, {entry!r}; only files inside it and "
            f"{hub.SCHEME} addresses are read"
        )
    return folder / inside


def _read_file(path: Path, config: Fields) -> Parts:
    if path.suffix == ".npz":
        return gemma_scope.read_params(path)
    tensors = Fields(path, read_tensors(path))
    if "w_enc" in tensors.values:
        return gemma_scope_2.parts_of(tensors)
    W_enc = tensors.matrix("W_enc", None, None)
    num_features, width = W_enc.shape
    activation = _activation(tensors, config.values, num_features)
    parts = Parts(
        W_enc=W_enc,
        b_enc=tensors.matrix("b_enc", num_features),
        W_dec=tensors.matrix("W_dec", num_features, width),
        b_dec=tensors.matrix("b_dec", width),
        W_skip=tensors.matrix("W_skip", width, width) if "W_skip" in tensors.values else None,
        activation=activation,
    )
    tensors.check_empty()
    return parts


def _activation(tensors: Fields, config: dict[str, Any], num_features: int) -> Activation:
    name = config.get("activation")
    if name == "topk":
        return SignedTopK(Fields(tensors.path.with_name(CONFIG), config).count("k"))
    if name not in (None, "relu"):
        raise DictionaryError(
            f"{tensors.path.with_name(CONFIG)} has the activation {name!r}; this format has relu "
            "and topk"
        )
    if THRESHOLD not in tensors.values:
        return ReLU()
    if name == "relu":
        raise CheckpointError(
            f"{tensors.path} has thresholds and {CONFIG} says relu; restore them from a copy"
        )
    return JumpReLU(tensors.matrix(THRESHOLD, num_features))


def _one_activation(dictionaries: DictionarySet, export: Export) -> dict[str, Any]:
    """What the configuration says of the activation; TopK, which drops negative ones, is lost."""
    first = dictionaries[0].activation
    for layer, dictionary in dictionaries.dictionaries.items():
        if not same_activation(dictionary.activation, first):
            raise DictionaryError(
                f"circuit-tracer has one activation for all layers, and layer 0 has "
                f"{describe(first)} {first.settings() or ''}, layer {layer} "
                f"{describe(dictionary.activation)} {dictionary.activation.settings() or ''}"
            )
    if isinstance(first, SignedTopK):
        return {"activation": "topk", "k": first.k}
    if isinstance(first, TopK):
        export.lose(
            f"circuit-tracer's TopK keeps the {first.k} largest pre-activations even where they "
            "are negative, and these dictionaries keep positive ones alone",
            "its TopK, which differs at tokens where fewer are positive (and which circuit-tracer "
            "0.5.0 takes for ReLU: its loader does not read the activation)",
        )
        return {"activation": "topk", "k": first.k}
    if isinstance(first, JumpReLU):
        return {}
    if isinstance(first, ReLU):
        return {"activation": "relu"}
    raise not_held(first, 0, "circuit-tracer")


def _tensors(dictionary: Dictionary) -> dict[str, Any]:
    return dictionary.tensors()
