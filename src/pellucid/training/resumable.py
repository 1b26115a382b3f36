"""What runs that save themselves share: beginning, going on, stopping, ending in a folder."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pellucid.core.errors import ConfigError, PellucidError
from pellucid.core.files import storage_errors
from pellucid.core.manifest import MANIFEST_NAME
from pellucid.harvest.rows import TokenRows
from pellucid.training.interrupt import graceful_stop
from pellucid.training.metrics import MetricsLog
from pellucid.training.run_checkpoint import (
    RunCheckpoint,
    check_identity,
    has_checkpoint,
    load_newest,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"


class TrainingStoppedError(PellucidError):
    """Training was interrupted; a checkpoint holds what it reached."""

    exit_code = 130


class Resumable(Protocol):
    """A run between two steps.

    Attributes:
        identity: what must be equal for two runs to be the same.
        steps: how many are done.
    """

    identity: dict[str, Any]
    steps: int

    @property
    def tokens(self) -> int:
        """How many tokens it has trained on."""

    def checkpoint(self) -> RunCheckpoint:
        """All that `restore` needs."""

    def restore(self, checkpoint: RunCheckpoint) -> None:
        """Go on from a checkpoint of a run with the same identity."""


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
        checkpoint = load_newest(folder)
        check_identity(checkpoint.identity, run.identity, out=out)
        run.restore(checkpoint)
    elif resume:
        logger.warning("%s holds no checkpoint yet; starting from the beginning", out)
    MetricsLog(out / METRICS).truncate(run.tokens)


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

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM.
    """
    first, saved = run.steps, time.monotonic()
    with graceful_stop() as stop:
        while run.steps < total_steps and not stop.asked:
            step()
            if time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(out / CHECKPOINTS, run.checkpoint())
                saved = time.monotonic()
        if run.steps > first:
            save_checkpoint(out / CHECKPOINTS, run.checkpoint())
    if stop.asked:
        raise TrainingStoppedError(
            f"training stopped at {run.tokens:,} of {total_tokens:,} tokens; a checkpoint "
            f"is in {out}: the same command with --resume goes on from it"
        )


def warn_of_repetition(rows: TokenRows, total_tokens: int) -> bool:
    """Whether the text has been read to its end; if so, say how often it will be read."""
    if rows.tokens_a_reading is None:
        return False
    if rows.tokens_a_reading < total_tokens:
        logger.warning(
            "the text of %s has %s tokens: it is repeated %d times to train on %s",
            rows.source.name,
            f"{rows.tokens_a_reading:,}",
            math.ceil(total_tokens / rows.tokens_a_reading),
            f"{total_tokens:,}",
        )
    return True


def put_in_place(export: Path, out: Path) -> None:
    """Move a finished set into the run's folder and delete its checkpoints.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(out):
        files = sorted(export.iterdir(), key=lambda file: file.name == MANIFEST_NAME)
        for file in files:  # the manifest last: it makes the set whole
            file.replace(out / file.name)
        export.rmdir()
        shutil.rmtree(out / CHECKPOINTS)
