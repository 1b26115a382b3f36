"""EleutherAI's sparsify 1.x: `{run}/{hookpoint}/cfg.json` and `sae.safetensors`.

Source: the keys and the arithmetic of sparsify 1.3. A hookpoint is a module path from the base
model; a transcoder reads that module's input and predicts its output, an SAE reads the output.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, final

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import AnySite
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.files import Fields, folders_with, read_json, read_tensors
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    model_name_of,
    of_kind,
    set_of,
    square_width,
)
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import module_of_site, site_of_module
from pellucid.dictionaries.formats.tensors import write_tensors
from pellucid.dictionaries.formats.thresholds import not_held
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder

CONFIG, WEIGHTS, RUN = "cfg.json", "sae.safetensors", "config.json"


@final
class Sparsify(WritableFormat):
    """TopK SAEs and transcoders of one width, with or without a skip path."""

    name = "sparsify"
    recognised_by = f"{CONFIG} beside {WEIGHTS}, in a folder a hookpoint"
    patterns: ClassVar = (f"*{CONFIG}", f"*{WEIGHTS}", RUN)

    def detect(self, folder: Path) -> bool:
        """By the names of its files."""
        return bool(folders_with(folder, WEIGHTS, CONFIG))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Hookpoints become sites where the model is given, and stay module paths otherwise."""
        homes = folders_with(folder, WEIGHTS, CONFIG)
        run = next((path for path in (folder / RUN, folder.parent / RUN) if path.is_file()), None)
        model = read_json(run).get("model") if run is not None else None
        return set_of(
            folder,
            {home: _read(home, host) for home in homes},
            model_name=model if isinstance(model, str) else None,
        )

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """One folder a hookpoint, and the run's `config.json` with the model's name."""
        names = set()
        for layer, dictionary in dictionaries.dictionaries.items():
            hookpoint = _hookpoint(dictionary, layer, export.host)
            names.add(hookpoint)
            _write(folder / hookpoint, dictionary, layer)
        run = {"model": model_name_of(dictionaries, export.host), "hookpoints": sorted(names)}
        (folder / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        write_provenance(folder, dictionaries)


def _read(home: Path, host: HostModel | None) -> Dictionary:
    config = Fields(home / CONFIG, read_json(home / CONFIG))
    tensors = Fields(home / WEIGHTS, read_tensors(home / WEIGHTS))
    width = config.count("d_in")
    num_features = _num_features(config, width)
    activation = config.word("activation", "topk")
    if activation != "topk":
        raise DictionaryError(
            f"{config.path} has the activation {activation!r}, which picks one feature of each "
            "group; pellucid has TopK and no such activation"
        )
    parts = Parts(
        W_enc=tensors.matrix("encoder.weight", num_features, width),
        b_enc=tensors.matrix("encoder.bias", num_features),
        W_dec=tensors.matrix("W_dec", num_features, width),
        b_dec=tensors.matrix("b_dec", width),
        W_skip=tensors.matrix("W_skip", width, width) if "W_skip" in tensors.values else None,
        activation=TopK(config.count("k") if "k" in config.values else 32),
    )
    tensors.check_empty()
    if config.flag("skip_connection", False) != (parts.W_skip is not None):
        raise CheckpointError(
            f"{config.path} and {tensors.path} disagree about a skip connection; restore them "
            "from a copy"
        )
    output = site_of_module(home.name, "output", host)
    if not config.flag("transcode", False):
        return parts.build(output, output)
    return parts.build(site_of_module(home.name, "input", host), output)


def _num_features(config: Fields, width: int) -> int:
    """A number above 0 is what it says; 0, or none, means a multiple of the width."""
    if config.values.get("num_latents"):
        return config.count("num_latents")
    return width * (config.count("expansion_factor") if "expansion_factor" in config.values else 32)


def _hookpoint(dictionary: Dictionary, layer: int, host: HostModel | None) -> str:
    """The module whose input and output, or whose output alone, a dictionary is about."""
    of_kind(dictionary, layer, (SAE, Transcoder), "sparsify")
    write, side = module_of_site(dictionary.write_site, host)
    if side == "output" and isinstance(dictionary, SAE):
        return write
    read, read_side = module_of_site(dictionary.read_site, host)
    if (side, read_side) == ("output", "input") and read == write:
        return write
    raise _no_hookpoint(dictionary.read_site, dictionary.write_site, layer)


def _no_hookpoint(read: AnySite, write: AnySite, layer: int) -> DictionaryError:
    return DictionaryError(
        f"sparsify knows a module's input and output, or its output alone, and layer {layer} "
        f"reads {read} and writes {write}, which are not those of one module in this model"
    )


def _write(home: Path, dictionary: Dictionary, layer: int) -> None:
    square_width(dictionary, layer, "sparsify")
    if not isinstance(dictionary.activation, TopK):
        raise not_held(dictionary.activation, layer, "sparsify")
    tensors = {
        "encoder.weight": dictionary.W_enc,
        "encoder.bias": dictionary.b_enc,
        "W_dec": dictionary.W_dec,
        "b_dec": dictionary.b_dec,
    }
    if dictionary.W_skip is not None:
        tensors["W_skip"] = dictionary.W_skip
    config: dict[str, Any] = {
        "activation": "topk",
        "expansion_factor": max(1, dictionary.num_features // dictionary.d_in),
        "normalize_decoder": False,
        "num_latents": dictionary.num_features,
        "k": dictionary.activation.k,
        "multi_topk": False,
        "skip_connection": dictionary.W_skip is not None,
        "transcode": not isinstance(dictionary, SAE),
        "d_in": dictionary.d_in,
    }
    write_tensors(home / WEIGHTS, tensors)
    (home / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
