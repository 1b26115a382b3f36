"""The manifest that accompanies every artifact: what made it, from what, and its checksums."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import sha256, write_text
from pellucid.core.sealed import SEAL, is_sealed, sealed_text

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that determine a result."""
    versions = {"python": platform.python_version()}
    for name in ("pellucid", "torch", "transformers", "tokenizers", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "source"
    return versions


def config_hash(config: dict[str, Any]) -> str:
    """A short hash of a JSON-able configuration, independent of key order."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(slots=True, kw_only=True)
class Manifest:
    """What an artifact is and where it comes from.

    Attributes:
        kind: artifact type, such as "dictionaries", "graph" or "specimen-model".
        config: everything needed to make it again (JSON-able).
        seed: the seed it was made with.
        parents: name -> hash of the artifacts it was made from.
        files: file name -> SHA-256, filled in by `write`.
        results: figures measured when it was made.
    """

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    parents: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=software_versions)
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path, files: list[str]) -> None:
        """Write `manifest.json` into `folder`, with checksums of the named files."""
        self.files = {name: sha256(Path(folder) / name) for name in sorted(files)}
        self.save(folder)

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`, with the checksums it has, and one of its own."""
        record = asdict(self) | {"config_hash": config_hash(self.config)}
        write_text(Path(folder) / MANIFEST_NAME, sealed_text(record))


def read_manifest(folder: Path, *, kind: str, verify: bool = True) -> Manifest:
    """Read and check the manifest of an artifact.

    Args:
        folder: the artifact's folder.
        kind: the kind expected.
        verify: compare every file's checksum with the recorded one.

    Raises:
        CheckpointError: missing, unreadable, another kind, a later schema, a missing, truncated
            or altered file.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    try:
        text = path.read_bytes().decode()  # as it is: `read_text` would mend line ends
        record = json.loads(text)
        if not is_sealed(record, text):
            raise CheckpointError(
                f"{path} is damaged (its checksum differs); restore it from a copy or make the "
                "artifact again"
            )
        for name in ("config_hash", SEAL):
            record.pop(name, None)
        manifest = Manifest(**record)
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {MANIFEST_NAME}; give a folder written by pellucid"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); restore it from a copy or make the artifact again"
        ) from error
    if manifest.schema_version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} has schema version {manifest.schema_version}, this pellucid reads up to "
            f"{SCHEMA_VERSION}; upgrade pellucid"
        )
    if manifest.kind != kind:
        raise CheckpointError(f"{folder} holds {manifest.kind!r}, not {kind!r}; check the path")
    if verify:
        _verify_files(folder, manifest)
    return manifest


def _verify_files(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).name != name:
            raise CheckpointError(
                f"{folder / MANIFEST_NAME} names a file outside its folder: {name!r}"
            )
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; restore it or make the artifact again")
        if _checksum(path) != expected:
            raise CheckpointError(
                f"{path} is damaged (its checksum differs from the manifest's); restore it from a "
                "copy or resume from an earlier checkpoint"
            )


def _checksum(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:  # a disk that cannot give back what it holds
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); restore it from a copy or make the "
            "artifact again"
        ) from error
