"""What runs that save themselves share: beginning, going on, stopping, ending in a folder."""

import fcntl
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pellucid.core.errors import ConfigError, PellucidError
from pellucid.core.files import storage_errors, sync_directory
from pellucid.core.manifest import MANIFEST_NAME
from pellucid.distributed.processes import Processes
from pellucid.training.interrupt import graceful_stop
from pellucid.training.run_checkpoint import (
    RunCheckpoint,
    check_identity,
    has_checkpoint,
    load_newest,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
EXPORT = ".export"
_ABANDONED = (EXPORT, f".{EXPORT}.previous", ".*.tmp")
"""What a killed process may leave in a run's folder, beside its checkpoints."""


class TrainingStoppedError(PellucidError):
    """Training was interrupted; a checkpoint holds what it reached."""

    exit_code = 130


class Resumable(Protocol):
    """A run between two steps.

    Attributes:
        identity: what must be equal for two runs to be the same.
        steps: how many are done.
        processes: that train together.
    """

    identity: dict[str, Any]
    steps: int
    processes: Processes

    @property
    def parts(self) -> Sequence[str] | None:
        """Which parts of a checkpoint this process has; None for all."""

    @property
    def tokens(self) -> int:
        """How many tokens it has trained on."""

    def checkpoint(self) -> RunCheckpoint:
        """All that `restore` needs."""

    def restore(self, checkpoint: RunCheckpoint) -> None:
        """Go on from a checkpoint of a run with the same identity."""


def check_interval(seconds: float) -> None:
    """Check how often a run is to save itself.

    Raises:
        ConfigError: not a number of seconds.
    """
    if not seconds >= 0:
        raise ConfigError(
            f"checkpoint_seconds is {seconds}; give 0 (after every step) or a positive number"
        )


@contextmanager
def held(out: Path, processes: Processes) -> Iterator[None]:
    """Make a run's folder, keep other runs out of it, and clear what a killed one left there.

    The system frees the folder when the process that holds it ends, however it ends. A file system
    that cannot keep others out lets them in.

    Raises:
        ConfigError: another process trains there.
        StorageError: the disk refuses.
    """
    if not processes.first:
        yield
        return
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    try:
        _lock(descriptor, out)
        with storage_errors(out):
            for path in (path for pattern in _ABANDONED for path in out.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"another process is training in {out}; wait for it, end it, or train into another "
            "folder"
        ) from None
    except OSError as error:
        logger.debug("%s cannot be locked: %s", out, error)


def begin(run: Resumable, out: Path, *, resume: bool) -> None:
    """Put the run where it has to start: at its beginning, or at the newest checkpoint in `out`.

    Raises:
        ConfigError: `out` holds an unfinished run that is not to be resumed, or another one.
        CheckpointError: no checkpoint is whole.
    """
    folder = out / CHECKPOINTS
    if has_checkpoint(folder):
        if not resume:
            raise ConfigError(
                f"{out} already holds a run that is not finished; resume it, or train into "
                "another folder"
            )
        checkpoint = load_newest(folder, run.parts, run.processes)
        check_identity(checkpoint.identity, run.identity, out=out)
        run.restore(checkpoint)
    elif resume:
        logger.warning("%s holds no checkpoint yet; starting from the beginning", out)


def keep_going(
    run: Resumable,
    out: Path,
    step: Callable[[], None],
    *,
    total_steps: int,
    total_tokens: int,
    checkpoint_seconds: float,
) -> None:
    """Call `step` until the run is over or told to stop, and leave a checkpoint of that moment.

    All processes of the run call this together, and stop together.

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM.
    """
    first, saved, stopping = run.steps, time.monotonic(), False
    processes = run.processes
    with graceful_stop() as stop:
        while run.steps < total_steps and not stopping:
            step()
            due = processes.first and time.monotonic() - saved >= checkpoint_seconds
            stopping, due = processes.agree(stop.asked, due)
            if due:
                save_checkpoint(out / CHECKPOINTS, run.checkpoint(), processes)
                saved = time.monotonic()
        if run.steps > first:
            save_checkpoint(out / CHECKPOINTS, run.checkpoint(), processes)
    if stopping:
        raise TrainingStoppedError(
            f"training stopped at {run.tokens:,} of {total_tokens:,} tokens; a checkpoint "
            f"is in {out}: the same command with --resume goes on from it"
        )


class ReadText(Protocol):
    """Text of which it is known, once it was read to its end, how long it is.

    Attributes:
        name: of the text.
    """

    name: str

    @property
    def tokens_a_reading(self) -> int | None:
        """How many tokens it has."""


def warn_of_repetition(text: ReadText, total_tokens: int) -> bool:
    """Whether the text has been read to its end; if so, say how often it will be read."""
    if text.tokens_a_reading is None:
        return False
    if text.tokens_a_reading < total_tokens:
        logger.warning(
            "the text of %s has %s tokens: it is repeated %d times to train on %s",
            text.name,
            f"{text.tokens_a_reading:,}",
            math.ceil(total_tokens / text.tokens_a_reading),
            f"{total_tokens:,}",
        )
    return True


def warn_of_finished(out: Path) -> None:
    """Say that there is nothing to go on with, so that no other setting has any effect."""
    logger.warning("the run in %s is finished; nothing was trained or stored", out)


def put_in_place(export: Path, out: Path) -> None:
    """Move a finished set into the run's folder and delete its checkpoints.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(out):
        files = sorted(export.iterdir(), key=lambda file: file.name == MANIFEST_NAME)
        for file in files:  # the manifest last: it makes the set whole
            file.replace(out / file.name)
        sync_directory(out)
        export.rmdir()
        shutil.rmtree(out / CHECKPOINTS)
