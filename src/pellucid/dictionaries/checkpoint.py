"""Saving and loading dictionary sets.

A folder with `manifest.json` (kind "dictionaries") and one `layer_{i}.safetensors` a layer, with
keys W_enc, W_dec, b_enc, b_dec, optional W_skip and activation_function.threshold: the tensors of
circuit-tracer's transcoder sets (a cross-layer transcoder's W_dec is [F, slots, d]). Kind,
activation and sites of each layer are in the manifest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import atomic_directory, recover_directory
from pellucid.core.manifest import MANIFEST_NAME, Manifest, read_manifest
from pellucid.core.registry import Registry
from pellucid.core.types import parse_site
from pellucid.dictionaries.activations import ACTIVATIONS
from pellucid.dictionaries.base import ACTIVATION_PREFIX, Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import MODEL_PARENT, DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder

ARTIFACT_KIND = "dictionaries"
DICTIONARIES: Registry[type[Dictionary]] = Registry(
    "dictionary kind", {cls.kind: cls for cls in (Transcoder, SAE, CrossLayerTranscoder)}
)


def save_dictionaries(
    folder: str | Path,
    dictionaries: Mapping[int, Dictionary],
    *,
    model_fingerprint: str | None = None,
    config: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write dictionaries into a folder, atomically: an earlier version stays until this is whole.

    Args:
        folder: where to; replaced if it exists.
        dictionaries: by layer number.
        model_fingerprint: of the model they were trained on; checked when they are used.
        config: how they were made (JSON-able); kept in the manifest under "training".
        results: figures measured when they were made (JSON-able).
        seed: the seed of their making.
        dtype: what tensors are stored as; float16 halves the size at about 5e-4 relative error.

    Returns:
        The folder.

    Raises:
        StorageError: the disk refuses.
    """
    layers = {str(layer): _describe(dictionaries[layer]) for layer in sorted(dictionaries)}
    manifest = Manifest(
        kind=ARTIFACT_KIND,
        config={"layers": layers, "training": dict(config or {})},
        seed=seed,
        parents={} if model_fingerprint is None else {MODEL_PARENT: model_fingerprint},
        results=dict(results or {}),
    )
    folder = Path(folder)
    with atomic_directory(folder) as temporary:
        for layer, dictionary in dictionaries.items():
            tensors = {
                name: tensor.detach().to("cpu", dtype).contiguous()
                for name, tensor in dictionary.tensors().items()
            }
            save_file(tensors, temporary / _file_name(layer))
        manifest.write(temporary, [_file_name(layer) for layer in dictionaries])
    return folder


def load_dictionaries(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    lazy: bool = False,
) -> DictionarySet:
    """Load a dictionary set that `save_dictionaries` wrote (see `formats.load` for any other).

    Every file is verified against the manifest's checksum. The caller checks that the set belongs
    to its model: `DictionarySet.check_model`.

    Args:
        source: the folder.
        device: where to put the parameters.
        dtype: of the parameters, and of everything computed with them.
        lazy: leave the parameters in the files, in the dtype they are stored in: they are mapped
            into memory, read where they are used, encoders a block of features at a time, decoders
            a row an active feature. What is computed has `dtype`. For dictionaries that do not fit
            into memory; on the CPU only.

    Raises:
        ConfigError: lazy dictionaries on another device than the CPU.
        CheckpointError: nothing there, or a file is missing, damaged or not of this format.
        DictionaryError: the tensors do not form valid dictionaries.
    """
    if lazy and torch.device(device).type != "cpu":
        raise ConfigError(f"lazy dictionaries stay in their files, on the CPU; device is {device}")
    folder = Path(source)
    recover_directory(folder)
    manifest = read_manifest(folder, kind=ARTIFACT_KIND)
    try:
        layers = {int(layer): spec for layer, spec in manifest.config["layers"].items()}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST_NAME} does not describe its layers ({error!r}); save the "
            "dictionaries again"
        ) from error
    dictionaries = {layer: _load_layer(folder, layer, spec) for layer, spec in layers.items()}
    for dictionary in dictionaries.values():
        if lazy:
            dictionary.compute_dtype = dtype
        else:
            dictionary.to(device=device, dtype=dtype)
    return DictionarySet(folder.name, dictionaries, manifest)


def _file_name(layer: int) -> str:
    return f"layer_{layer}.safetensors"


def _describe(dictionary: Dictionary) -> dict[str, Any]:
    return {
        "kind": dictionary.kind,
        "activation": {"name": dictionary.activation.name, **dictionary.activation.settings()},
        "read_site": str(dictionary.read_site),
        "write_site": str(dictionary.write_site),
    }


def _load_layer(folder: Path, layer: int, spec: Mapping[str, Any]) -> Dictionary:
    path = folder / _file_name(layer)
    try:
        tensors = load_file(path)
        settings = dict(spec["activation"])
        activation = ACTIVATIONS[settings.pop("name")](
            **settings,
            **{
                name.removeprefix(ACTIVATION_PREFIX): tensors.pop(name)
                for name in list(tensors)
                if name.startswith(ACTIVATION_PREFIX)
            },
        )
        dictionary = DICTIONARIES[spec["kind"]](
            **tensors,
            activation=activation,
            read_site=parse_site(spec["read_site"]),
            write_site=parse_site(spec["write_site"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not hold a dictionary as {MANIFEST_NAME} describes it ({error}); restore "
            "it from a copy or save it again"
        ) from error
    check_finite(path, dictionary.tensors())
    return dictionary


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors with a value that is not finite.

    Raises:
        CheckpointError: names the tensor.
    """
    for name, tensor in tensors.items():
        low, high = tensor.aminmax()  # passes NaN on, and needs no temporary of the tensor's size
        if not (low.isfinite() and high.isfinite()):
            raise CheckpointError(
                f"{path} has a value in {name} that is not finite; the training diverged or the "
                "stored dtype overflowed: load an earlier checkpoint or save in float32"
            )
