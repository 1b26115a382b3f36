"""Stages of the workflow as folders: each is written whole, found again, and checked.

A stage that was made with the same settings from the same earlier stages and the same model is not
made again. `ROOT/STAGE/result.json` holds its figures; the manifest beside it says what made it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import atomic_directory, recover_directory, sha256, write_text
from pellucid.core.manifest import MANIFEST_NAME, Manifest, config_hash, read_manifest

RESULT = "result.json"
MODEL = "model"
Record = dict[str, Any]


def kind_of(stage: str) -> str:
    """The kind of a stage's manifest."""
    return f"safety-{stage}"


def stage_hash(root: Path, stage: str) -> str:
    """Of everything in a stage, by its manifest.

    Raises:
        CheckpointError: the stage is missing or damaged.
    """
    read_stage(root, stage)
    return sha256(Path(root) / stage / MANIFEST_NAME)


def read_stage(root: Path, stage: str, *, fingerprint: str | None = None) -> Record:
    """The figures of a stage that has been made.

    Args:
        root: the workflow's folder.
        stage: its name.
        fingerprint: of the model at hand, to be that of the stage.

    Raises:
        CheckpointError: the stage is missing or damaged, or of another model.
    """
    folder = Path(root) / stage
    recover_directory(folder)
    if not (folder / MANIFEST_NAME).is_file():
        raise CheckpointError(
            f"{root} has no stage {stage!r} yet; run `pellucid safety {stage}` with this --out"
        )
    manifest = read_manifest(folder, kind=kind_of(stage))
    recorded = manifest.parents.get(MODEL)
    if fingerprint is not None and recorded != fingerprint:
        raise CheckpointError(
            f"{folder} was made with another model (fingerprint {recorded}, this one's is "
            f"{fingerprint}); use that model or another --out"
        )
    return _result(folder)


def finished(
    root: Path, stage: str, config: Mapping[str, Any], parents: Mapping[str, str]
) -> Record | None:
    """The figures of a stage made with just these settings and parents, None if there are none.

    Args:
        root: the workflow's folder.
        stage: its name.
        config: the settings.
        parents: hashes of what it is made from.

    Raises:
        CheckpointError: it is there but damaged.
    """
    folder = Path(root) / stage
    recover_directory(folder)
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(folder, kind=kind_of(stage))
    same = config_hash(manifest.config) == config_hash(dict(config))
    return _result(folder) if same and manifest.parents == dict(parents) else None


def write_stage(
    root: Path,
    stage: str,
    record: Record,
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    write: Callable[[Path], list[str]] = lambda folder: [],
) -> Record:
    """Put a finished stage in its place, atomically.

    Args:
        root: the workflow's folder.
        stage: its name.
        record: its figures, JSON-able.
        config: the settings.
        parents: hashes of what it is made from.
        write: writes further files into a folder and returns their names.

    Returns:
        The figures as they will be read back.

    Raises:
        StorageError: the disk refuses.
    """
    with atomic_directory(Path(root) / stage) as folder:
        names = write(folder)
        text = json.dumps(record, indent=2, allow_nan=False)
        write_text(folder / RESULT, text + "\n")
        manifest = Manifest(kind=kind_of(stage), config=dict(config), parents=dict(parents))
        manifest.write(folder, [*names, RESULT])
    found: Record = json.loads(text)
    return found


def _result(folder: Path) -> Record:
    try:
        record: Record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / RESULT} cannot be read ({error}); delete the folder and run the stage again"
        ) from error
    return record
