"""Checkpoints of a training run: the newest two are kept, each verified before the third goes."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import atomic_directory, recover_directory, storage_errors
from pellucid.core.manifest import Manifest, read_manifest

logger = logging.getLogger(__name__)

ARTIFACT_KIND = "training-checkpoint"
KEPT_CHECKPOINTS = 2
_STATE_NAME = "state.json"
_FOLDER_NAME = re.compile(r"checkpoint-\d{14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheckpoint:
    """A run between two steps.

    Attributes:
        tokens: tokens trained on so far.
        identity: what must be equal for the run to go on, by name (JSON-able): configuration,
            model, data.
        state: everything else that is not a tensor (JSON-able).
        tensors: by part of the run (a layer) and name.
    """

    tokens: int
    identity: dict[str, Any]
    state: dict[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]


def save_checkpoint(folder: Path, checkpoint: RunCheckpoint) -> Path:
    """Write a checkpoint below `folder`, read it back, then delete all but the newest two.

    Raises:
        StorageError: the disk refuses; the checkpoints before are untouched.
        CheckpointError: what was read back is not what was written.
    """
    path = folder / f"checkpoint-{checkpoint.tokens:014d}"
    names = [f"{part}.safetensors" for part in checkpoint.tensors]
    with atomic_directory(path) as temporary:
        for name, tensors in zip(names, checkpoint.tensors.values(), strict=True):
            whole = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
            save_file(whole, temporary / name)
        record = {
            "tokens": checkpoint.tokens,
            "identity": checkpoint.identity,
            "state": checkpoint.state,
        }
        text = json.dumps(record, allow_nan=False)
        (temporary / _STATE_NAME).write_text(text, encoding="utf-8")
        manifest = Manifest(kind=ARTIFACT_KIND, config=checkpoint.identity)
        manifest.write(temporary, [*names, _STATE_NAME])
    read_manifest(path, kind=ARTIFACT_KIND)
    abandoned = folder.glob(".checkpoint-*.tmp")  # by a process killed while it was writing
    with storage_errors(folder):
        for old in (*_checkpoints(folder)[KEPT_CHECKPOINTS:], *abandoned):
            shutil.rmtree(old)
    return path


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved anything below `folder`."""
    return bool(_checkpoints(folder))


def load_newest(folder: Path) -> RunCheckpoint:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning.

    Raises:
        CheckpointError: there is none, or every one is damaged.
    """
    for path in _checkpoints(folder):
        try:
            return _load(path)
        except CheckpointError as error:
            logger.warning("passing over the checkpoint %s: %s", path.name, error)
    raise CheckpointError(
        f"{folder} has no checkpoint that is whole; restore one from a copy or train again into "
        "another folder"
    )


def check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], *, out: Path) -> None:
    """Check that a run may go on: everything that decides its result is as it was.

    Raises:
        ConfigError: names the first setting that differs.
    """
    for name in [*wanted, *found]:
        before, now = found.get(name), wanted.get(name)
        if before != now:
            raise ConfigError(
                f"cannot resume the run in {out}: its {name} is {before!r}, now it is {now!r}; "
                "resume with what it was, or train into another folder"
            )


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    if not folder.is_dir():
        return []
    for previous in folder.glob(".checkpoint-*.previous"):
        recover_directory(folder / previous.name[1:].removesuffix(".previous"))
    found = [path for path in folder.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def _load(path: Path) -> RunCheckpoint:
    manifest = read_manifest(path, kind=ARTIFACT_KIND)
    record = json.loads((path / _STATE_NAME).read_text(encoding="utf-8"))
    tensors = {
        # Cloned, because results of matrix products may depend on how memory is aligned.
        Path(name).stem: {key: tensor.clone() for key, tensor in load_file(path / name).items()}
        for name in manifest.files
        if name != _STATE_NAME
    }
    return RunCheckpoint(**record, tensors=tensors)
