"""Where a run's figures go: its log, and whatever draws curves of it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.training.measure import Measurement
from pellucid.training.metrics import MetricsLog, TrainProgress
from pellucid.training.run import Run
from pellucid.training.tracking import TRACKERS, TrackedRun, Tracker
from pellucid.training.tracking.tracker import library

logger = logging.getLogger(__name__)

LOG_STEPS = 10
METRICS_NAME = "metrics.jsonl"


class Recorder:
    """Records a run: every `LOG_STEPS` steps, and whenever its quality is measured.

    Args:
        out: the run's folder.
        measurement: what measures quality now and then.
        track: names of trackers.

    Raises:
        ConfigError: an unknown tracker, or one whose package is not installed.
    """

    def __init__(
        self, out: Path, *, measurement: Measurement | None = None, track: Sequence[str] = ()
    ) -> None:
        self._out, self._measurement = out, measurement
        self._log = MetricsLog(out / METRICS_NAME)
        self._kinds = {name: TRACKERS[name] for name in dict.fromkeys(track)}
        for name, kind in self._kinds.items():
            library(name, kind)
        self._trackers: dict[str, Tracker] = {}

    @contextmanager
    def following(self, run: Run) -> Iterator[None]:
        """Cut the log back to where the run is; keep trackers open while the context lasts.

        Raises:
            ConfigError: a tracker cannot begin.
        """
        logged = self._log.last_tokens()
        self._log.truncate(run.tokens)
        tracked = TrackedRun(
            folder=self._out, config=run.identity, tokens=run.tokens, logged=logged
        )
        try:
            for name, kind in self._kinds.items():
                self._trackers[name] = kind.open(tracked)
            yield
        finally:
            for name in list(self._trackers):
                self._attempt(name, self._trackers.pop(name).close)

    def record(self, progress: TrainProgress, run: Run) -> TrainProgress:
        """Take in the step that was just done.

        Returns:
            The progress, with the run's quality where it was measured now.

        Raises:
            StorageError: the disk refuses.
        """
        before = progress.tokens - run.plan.config.batch_tokens
        if self._measurement and self._measurement.due(
            before, progress.tokens, progress.total_tokens
        ):
            progress = replace(progress, measured=self._measurement(run.dictionaries()))
        if progress.measured or run.steps % LOG_STEPS == 0:
            self._log.append(progress)
            figures = curves(progress.to_json())
            for name in list(self._trackers):
                self._attempt(name, self._trackers[name].log, progress.tokens, figures)
        return progress

    def _attempt(self, name: str, action: Any, *values: Any) -> None:
        """Do what a tracker is asked; one that fails is left out from then on, the run goes on."""
        try:
            action(*values)
        except Exception as error:  # whatever a foreign service raises
            logger.warning(
                "tracking with %s failed and stops (%s); %s has every figure",
                name,
                error,
                self._out / METRICS_NAME,
            )
            self._trackers.pop(name, None)


def curves(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The figures of a record of the log by the name of their curve, such as `layer_0/fvu`."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if name == "layers":
            for layer in value:
                figures = {key: each for key, each in layer.items() if key != "layer"}
                found |= curves(figures, f"{prefix}layer_{layer['layer']}/")
        elif isinstance(value, Mapping):
            found |= curves(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name != "tokens":
            found[prefix + name] = float(value)
    return found
