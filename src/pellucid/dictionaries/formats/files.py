"""Reading the files of other tools, which may be damaged, made up, or meant to do harm.

Nothing here runs code of a file: JSON, safe YAML, safetensors, npz without objects, and pickles of
tensors alone. Every tensor is floating point and finite.
"""

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pellucid.core.errors import CheckpointError
from pellucid.dictionaries.checkpoint import check_finite

_DEEPEST = 4


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: missing, not JSON, or not an object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return _object(path, record)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read without any of its tags.

    Raises:
        CheckpointError: missing, not YAML, or not a mapping.
    """
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return _object(path, record)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: missing, damaged, or a tensor is not of finite numbers.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    return _checked(path, tensors)


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an npz file, as tensors; pickled objects are refused.

    Raises:
        CheckpointError: missing, damaged, or an array is not of finite numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return _checked(path, tensors)


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`, loaded with `weights_only=True`.

    Raises:
        CheckpointError: missing, damaged, anything but a dictionary of tensors, or a tensor is not
            of finite numbers.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a made-up file makes it raise
        raise _unreadable(path, error) from error
    record = _object(path, tensors)
    named = {name: value for name, value in record.items() if isinstance(value, Tensor)}
    return _checked(path, named)


class Fields:
    """What a file holds, by name; a name that is missing is explained.

    Args:
        path: of the file, for messages.
        values: what it holds.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = dict(values)

    def take(self, name: str) -> Any:
        """A value that must be there; it is used up.

        Raises:
            CheckpointError: it is not there.
        """
        if name not in self.values:
            raise CheckpointError(
                f"{self.path} lacks {name!r} (it has {_listed(self.values)}); restore it from a "
                "copy"
            )
        return self.values.pop(name)

    def maybe(self, name: str, default: Any = None) -> Any:
        """A value that may be there; it is used up."""
        return self.values.pop(name, default)

    def text(self, name: str) -> str:
        """A value that must be text.

        Raises:
            CheckpointError: it is missing or something else.
        """
        value = self.take(name)
        if not isinstance(value, str):
            raise CheckpointError(f"{self.path} has {name} = {value!r}; it should be text")
        return value

    def word(self, name: str, default: str | None = None) -> str | None:
        """A text that may be missing or null: `default` then.

        Raises:
            CheckpointError: it is something else.
        """
        return default if self.values.get(name) is None else self.text(name)

    def flag(self, name: str, default: bool) -> bool:
        """A truth value that may be missing.

        Raises:
            CheckpointError: it is something else.
        """
        value = self.maybe(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path} has {name} = {value!r}; it should be true or false")
        return value

    def count(self, name: str) -> int:
        """A value that must be a whole number above 0.

        Raises:
            CheckpointError: it is missing or something else.
        """
        value = self.take(name)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = int(value) if float(value) == int(value) else float(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{self.path} has {name} = {value!r}; it should be a whole number above 0"
            )
        return value

    def matrix(self, name: str, *shape: int | None) -> Tensor:
        """A tensor of a given shape; None stands for any size.

        Raises:
            CheckpointError: it is missing or has another shape.
        """
        tensor = self.take(name)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{self.path} has {name} of {tensor.dtype}; it should be of floating point"
            )
        fits = len(shape) == tensor.ndim and all(
            wanted in (None, size) for wanted, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            words = ", ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointError(
                f"{self.path} has {name} of shape {tuple(tensor.shape)} where ({words}) fits the "
                "other tensors; restore it from a copy"
            )
        return tensor

    def check_empty(self) -> None:
        """Nothing may be left.

        Raises:
            CheckpointError: something is, which this format does not have.
        """
        if self.values:
            raise CheckpointError(
                f"{self.path} has {_listed(self.values)}, which pellucid does not know in this "
                "format; the dictionary would not be the same without it"
            )


def folders_with(folder: Path, *names: str) -> list[Path]:
    """`folder`, or those at most four below it, with files of all these names; natural order."""
    found = []
    for path, inner, _ in os.walk(folder):
        home = Path(path)
        if all((home / name).is_file() for name in names):
            found.append(home)
            inner.clear()
        elif len(home.relative_to(folder).parts) >= _DEEPEST:
            inner.clear()
    return sorted(found, key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sort key under which layer_10 follows layer_9."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _object(path: Path, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict) or not all(isinstance(key, str) for key in record):
        raise CheckpointError(
            f"{path} holds {type(record).__name__}, not names with values; restore it from a copy"
        )
    return record


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Finite numbers, none empty; those that count (k of a TopK) may be whole."""
    for name, tensor in tensors.items():
        if tensor.is_complex() or tensor.dtype == torch.bool or not tensor.numel():
            raise CheckpointError(
                f"{path} has {name} of {tensor.dtype} and shape {tuple(tensor.shape)}; it should "
                "hold numbers"
            )
        if tensor.is_floating_point():
            check_finite(path, {name: tensor})
    return tensors


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return CheckpointError(f"{path} cannot be read ({reason}); restore it from a copy")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
