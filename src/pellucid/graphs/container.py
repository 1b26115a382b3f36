"""One file that holds named arrays and a JSON header, checked when read.

The file is a safetensors file whose metadata has one entry, the header. The header carries a
SHA-256 over itself and over every array, so a file that is cut short or altered is refused.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pellucid.core.errors import GraphError
from pellucid.core.files import atomic_file

ENTRY = "pellucid"


def json_value(value: Any) -> Any:
    """`value` with numbers JSON cannot hold (NaN, infinity) turned into null, NumPy ones plain."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_container(
    path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write `arrays` and the JSON-able `header` to `path`, atomically.

    Raises:
        StorageError: the disk refuses.
    """
    plain = json_value(header)
    text = json.dumps(plain | {"sha256": _digest(arrays, plain)}, sort_keys=True, allow_nan=False)
    with atomic_file(Path(path)) as temporary:
        save_file(dict(arrays), temporary, metadata={ENTRY: text})


def read_container(
    path: Path, *, kind: str, schema_version: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_container` wrote; the header must name `kind` and a known schema version.

    Raises:
        GraphError: missing, not such a file, truncated, altered, another kind, a later schema.
    """
    path = Path(path)
    if not path.is_file():
        raise GraphError(f"there is no graph file at {path}; check the path or trace a prompt")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(ENTRY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise GraphError(
            f"{path} is not a readable graph file ({_one_line(error)}); restore it or trace again"
        ) from error
    if text is None:
        raise GraphError(f"{path} has no pellucid header; give a file written by pellucid")
    try:
        header = json.loads(text)
        expected = header.pop("sha256")
        found, version = header["kind"], int(header["schema_version"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise GraphError(f"{path} has a damaged header; restore it or trace again") from error
    if found != kind:
        raise GraphError(f"{path} holds {found!r}, not {kind!r}; check the path")
    if version > schema_version:
        raise GraphError(
            f"{path} has schema version {version}, this pellucid reads up to {schema_version}; "
            "upgrade pellucid"
        )
    if _digest(arrays, header) != expected:
        raise GraphError(
            f"{path} is damaged (its checksum differs from the one recorded); restore it from a "
            "copy or trace again"
        )
    return arrays, header


def _digest(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
