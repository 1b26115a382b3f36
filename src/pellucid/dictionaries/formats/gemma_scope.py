"""Gemma Scope 1 transcoders: `layer_{L}/width_{W}/average_l0_{N}/params.npz`.

Source: Lieberum et al. 2024, "Gemma Scope"; the arithmetic of its tutorial. W_enc is [d, F];
a = pre where pre > threshold; x is read without b_dec subtracted. They read the residual that the
MLP's norm has normalised but not yet multiplied with its gain, and predict what the MLP adds, after
its post-norm.
"""

import re
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries.activations import JumpReLU
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.files import Fields, folders_with, read_npz
from pellucid.dictionaries.formats.format import (
    Export,
    WritableFormat,
    no_skip,
    of_kind,
    set_of,
    square_width,
)
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts
from pellucid.dictionaries.formats.provenance import write_provenance
from pellucid.dictionaries.formats.sites import NORMALISED, hook_of_layer, mlp_norm, placed
from pellucid.dictionaries.formats.thresholds import as_jumprelu
from pellucid.dictionaries.transcoder import Transcoder

WEIGHTS = "params.npz"
_LAYER = re.compile(r"layer_(\d+)")
_OF_ONE_SITE = re.compile(r"gemma-scope-[\w.]+-(?:pt|it)-(res|mlp|att)\b")


@final
class GemmaScope(WritableFormat):
    """JumpReLU transcoders of one width, without a skip path; needs the model, for the gain."""

    name = "gemma-scope"
    recognised_by = f"{WEIGHTS}, in folders named layer_N"
    patterns: ClassVar = (f"*{WEIGHTS}",)
    one_of_many = True

    def detect(self, folder: Path) -> bool:
        """By the name of its files."""
        return bool(folders_with(folder, WEIGHTS))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """The gain of the model's norm is folded into the encoder."""
        homes = folders_with(folder, WEIGHTS)
        return set_of(folder, {home: _read(home, host) for home in homes})

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """Reads before the gain: the model's is folded out of the encoder."""
        for layer, dictionary in dictionaries.dictionaries.items():
            arrays = _arrays(dictionary, layer, export)
            path = folder / f"layer_{layer}" / width_name(dictionary) / WEIGHTS
            path.parent.mkdir(parents=True)
            np.savez(path, **arrays)
        write_provenance(folder, dictionaries)


def read_params(path: Path) -> Parts:
    """The parts of one file, as they are: before the gain.

    Raises:
        CheckpointError: damaged, or not of this format.
    """
    arrays = Fields(path, read_npz(path))
    encoder = arrays.matrix("W_enc", None, None)
    width, num_features = encoder.shape
    parts = Parts(
        W_enc=encoder.T,
        b_enc=arrays.matrix("b_enc", num_features),
        W_dec=arrays.matrix("W_dec", num_features, width),
        b_dec=arrays.matrix("b_dec", width),
        activation=JumpReLU(arrays.matrix("threshold", num_features)),
    )
    arrays.check_empty()
    return parts


def width_name(dictionary: Dictionary) -> str:
    """The name of a number of features in paths: `width_16k`."""
    thousands, rest = divmod(dictionary.num_features, 1024)
    return f"width_{dictionary.num_features}" if rest else f"width_{thousands}k"


def jumprelu_transcoder(dictionary: Dictionary, layer: int, format_name: str) -> None:
    """What both Gemma Scopes demand: one width, from the MLP's input to its output.

    Raises:
        DictionaryError: another kind, other widths or other sites.
    """
    of_kind(dictionary, layer, (Transcoder,), format_name)
    square_width(dictionary, layer, format_name)
    wanted = (Site("mlp_in", layer), Site("mlp_out", layer))
    if (dictionary.read_site, dictionary.write_site) != wanted:
        raise DictionaryError(
            f"{format_name} holds transcoders from mlp_in to mlp_out, and layer {layer} reads "
            f"{dictionary.read_site} and writes {dictionary.write_site}"
        )


def _read(home: Path, host: HostModel | None) -> Dictionary:
    path = (home / WEIGHTS).absolute()
    elsewhere = _OF_ONE_SITE.search(str(path))
    if elsewhere is not None:
        raise DictionaryError(
            f"{path} is of {elsewhere[0]}, the SAEs of one site; pellucid reads Gemma Scope's "
            "transcoders"
        )
    numbers = [_LAYER.fullmatch(part) for part in path.parts]
    layers = [int(match[1]) for match in numbers if match]
    if not layers:
        raise CheckpointError(
            f"{path} does not say which layer it is of; keep it in a folder named layer_N, as it "
            "was published"
        )
    layer = layers[-1]
    return placed(
        read_params(path), hook_of_layer(NORMALISED, layer), hook_of_layer("hook_mlp_out", layer),
        host,
    )  # fmt: skip


def _arrays(dictionary: Dictionary, layer: int, export: Export) -> dict[str, Any]:
    jumprelu_transcoder(dictionary, layer, "gemma-scope")
    no_skip(dictionary, layer, "gemma-scope")
    activation = as_jumprelu(dictionary, layer, export, "gemma-scope")
    norm = mlp_norm(layer, export.host)
    parts = Parts.of(dictionary).before_gain(norm.gain, norm.bias)
    tensors = {
        "W_enc": parts.W_enc.T,
        "W_dec": parts.W_dec,
        "b_enc": parts.b_enc,
        "b_dec": parts.b_dec,
        "threshold": activation.threshold.detach(),
    }
    return {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}
