"""Checkpoints of a training run: the newest two are kept, each verified before the third goes.

A checkpoint is the same whoever wrote it: tensors in safetensors files, whole or by rows, under
names like `layer_0.parameters.W_enc`; `state.json`; and the place in the text of every process that
reads text of its own, `stream_0.json` and so on. So any number of processes can go on from it.
"""

import json
import logging
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.files import recover_directory, settle_directory, storage_errors
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.distributed.processes import ALONE, Processes
from pellucid.distributed.team import Team
from pellucid.distributed.tensors import as_rows, read_parts, write_parts
from pellucid.harvest.stream import further

logger = logging.getLogger(__name__)

ARTIFACT_KIND = "training-checkpoint"
KEPT_CHECKPOINTS = 2
_STATE_NAME = "state.json"
_ROWS = ("W_enc", "b_enc", "W_dec", "threshold", "idle_tokens")
_FOLDER_NAME = re.compile(r"checkpoint-\d{14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheckpoint:
    """A run between two steps.

    Attributes:
        tokens: tokens trained on so far.
        identity: what must be equal for the run to go on, by name (JSON-able): configuration,
            model, data.
        state: everything else that is not a tensor (JSON-able), the same in all processes.
        tensors: by part of the run (a layer) and name, what this process holds of them.
        stream: where this process is in the text (JSON-able).
    """

    tokens: int
    identity: dict[str, Any]
    state: dict[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]
    stream: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: RunCheckpoint, processes: Processes = ALONE) -> Path:
    """Write a checkpoint below `folder`, read it back, then delete all but the newest two.

    All processes call this together, with a folder that they share.

    Raises:
        StorageError: the disk refuses; the checkpoints before are untouched.
        CheckpointError: what was read back is not what was written.
    """
    path = _path(folder, checkpoint.tokens)
    temporary = folder / f".{path.name}.tmp"
    with storage_errors(path):
        if processes.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        processes.wait()
        try:
            _write_share(temporary, checkpoint, processes)
            processes.wait()
            if processes.first:
                _complete(temporary, checkpoint)
                settle_directory(temporary, path)
        finally:
            if processes.first:
                shutil.rmtree(temporary, ignore_errors=True)
        if processes.first:
            read_manifest(path, kind=ARTIFACT_KIND)
            abandoned = folder.glob(".checkpoint-*.tmp")  # by a process killed while writing
            for old in (*_checkpoints(folder)[KEPT_CHECKPOINTS:], *abandoned):
                shutil.rmtree(old)
        processes.wait()
    return path


def _write_share(folder: Path, checkpoint: RunCheckpoint, processes: Processes) -> None:
    """What this process holds of the tensors, and its place in the text."""
    parts = {
        part: {n: as_rows(t, processes) if _by_rows(n) else t for n, t in tensors.items()}
        for part, tensors in checkpoint.tensors.items()
    }
    write_parts(folder, parts, processes)
    if processes.first_of_data:
        path = folder / _stream_name(processes.teams.tokens.rank)
        path.write_text(json.dumps(checkpoint.stream, allow_nan=False), encoding="utf-8")


def _complete(folder: Path, checkpoint: RunCheckpoint) -> None:
    """What one process writes for all, once every other file is there."""
    record = {
        "tokens": checkpoint.tokens,
        "identity": checkpoint.identity,
        "state": checkpoint.state,
    }
    text = json.dumps(record, allow_nan=False)
    (folder / _STATE_NAME).write_text(text, encoding="utf-8")
    manifest = Manifest(kind=ARTIFACT_KIND, config=checkpoint.identity)
    manifest.write(folder, [path.name for path in folder.iterdir()])


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved anything below `folder`."""
    return bool(_checkpoints(folder))


def load_newest(
    folder: Path, parts: Sequence[str] | None = None, processes: Processes = ALONE
) -> RunCheckpoint:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning.

    All processes call this together.

    Args:
        folder: that they share.
        parts: which this process wants; by default all.
        processes: all of them.

    Raises:
        CheckpointError: there is none, or every one is damaged.
    """
    tokens = _newest_whole(folder) if processes.first else 0
    tokens = int(processes.everyone.sum(torch.tensor(tokens, device=processes.device)))
    return _load(_path(folder, tokens), parts, processes)


def each_part(folder: Path, parts: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """The tensors of some parts of the newest checkpoint that is whole, one part at a time.

    Raises:
        CheckpointError: there is none, or every one is damaged.
    """
    path = _path(folder, _newest_whole(folder))
    files = read_manifest(path, kind=ARTIFACT_KIND).files
    for part in parts:
        yield read_parts(path, [part], _by_rows, ALONE, files)[part]


def _newest_whole(folder: Path) -> int:
    """The tokens that the newest checkpoint had trained on, of those that are whole."""
    for path in _checkpoints(folder):
        try:
            read_manifest(path, kind=ARTIFACT_KIND)
            return int(path.name.removeprefix("checkpoint-"))
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


def _load(path: Path, parts: Sequence[str] | None, processes: Processes) -> RunCheckpoint:
    record = json.loads((path / _STATE_NAME).read_text(encoding="utf-8"))
    files = read_manifest(path, kind=ARTIFACT_KIND, verify=False).files
    tensors = read_parts(path, parts, _by_rows, processes, files)
    stream = _stream(path, files, processes.teams.tokens)
    return RunCheckpoint(**record, stream=stream, tensors=tensors)


def _stream(path: Path, files: Collection[str], tokens: Team) -> dict[str, Any]:
    """Where a process goes on in the text.

    Where as many processes read text of their own as then, each goes on where it was. Otherwise all
    go on from the furthest fill of the buffer that any of them had begun (`further`).
    """
    names = [_stream_name(rank) for rank in range(len(files))]
    states = [
        json.loads((path / name).read_text(encoding="utf-8")) for name in names if name in files
    ]
    if not any(states):
        return {}
    if len(states) == tokens.size:
        return dict(states[tokens.rank])
    return further(states, tokens.rank)


def _path(folder: Path, tokens: int) -> Path:
    return folder / f"checkpoint-{tokens:014d}"


def _by_rows(name: str) -> bool:
    """Whether a tensor has a row a feature."""
    return name.rpartition(".")[2] in _ROWS


def _stream_name(rank: int) -> str:
    return f"stream_{rank}.json"
