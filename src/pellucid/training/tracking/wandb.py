"""Curves for Weights & Biases."""

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from pellucid.core.errors import ConfigError
from pellucid.core.files import write_text
from pellucid.training.tracking.tracker import TrackedRun, Tracker

ID_FILE = "wandb.json"
PROJECT = "pellucid"


@final
class WandbTracker(Tracker):
    """Sends figures to Weights & Biases; the step is the tokens.

    The run's id is kept in its folder, so that a run that goes on goes on with the same curves.
    Points that were logged before are not sent again: training repeats them exactly. (A process
    killed between logging a point and sending it leaves that one out.) Project, entity and mode are
    read from W&B's own environment variables (`WANDB_MODE=offline` needs no account).
    """

    module = "wandb"

    def __init__(self, run: Any, sent: int) -> None:
        self._run, self._sent = run, sent

    @classmethod
    def open(cls, run: TrackedRun) -> "WandbTracker":
        """See `Tracker.open`.

        Raises:
            ConfigError: the service refuses.
        """
        wandb = importlib.import_module(cls.module)
        try:
            started = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=_run_id(run.folder / ID_FILE),
                resume="allow",
                name=run.folder.name,
                dir=str(run.folder),
                config=dict(run.config),
            )
        except Exception as error:  # the client raises errors of several libraries
            raise ConfigError(
                f"Weights & Biases did not start ({error}); run wandb login, or set "
                "WANDB_MODE=offline"
            ) from error
        return cls(started, run.logged)

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        if tokens > self._sent:
            self._run.log(dict(figures), step=tokens)
            self._sent = tokens

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


def _run_id(path: Path) -> str:
    """The id that the folder remembers, or a new one that it will."""
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    made = uuid4().hex[:12]
    write_text(path, json.dumps({"id": made}) + "\n")
    return made
