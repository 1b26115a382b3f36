"""Curves for TensorBoard, as event files in the run's folder."""

import importlib
from collections.abc import Mapping
from typing import Any, final

from pellucid.training.tracking.tracker import TrackedRun, Tracker

FOLDER = "tensorboard"


@final
class TensorBoardTracker(Tracker):
    """Writes event files below `tensorboard/` in the run's folder; the step is the tokens.

    A run that goes on writes a file that tells readers to drop later points of the files before it.
    """

    module = "torch.utils.tensorboard"

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def open(cls, run: TrackedRun) -> "TensorBoardTracker":
        """See `Tracker.open`."""
        writer = importlib.import_module(cls.module).SummaryWriter
        purge = run.tokens + 1 if run.logged else None
        return cls(writer(log_dir=str(run.folder / FOLDER), purge_step=purge))

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """See `Tracker.log`; on disk at once, so that a killed process loses nothing."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, global_step=tokens)
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker.close`."""
        self._writer.close()
