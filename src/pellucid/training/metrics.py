"""What a run reports while it goes on: trailing figures and a log of them."""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pellucid.core.files import storage_errors, write_text
from pellucid.harvest.fidelity import LayerFidelity
from pellucid.training.measure import Measured
from pellucid.training.step import StepMetrics

WINDOW_STEPS = 50


class Window:
    """One layer's figures over its last `WINDOW_STEPS` steps."""

    def __init__(self, layer: int) -> None:
        self._layer = layer
        self._steps: deque[StepMetrics] = deque(maxlen=WINDOW_STEPS)

    def add(self, metrics: StepMetrics) -> None:
        """Take in a step."""
        self._steps.append(metrics)

    def figures(self) -> LayerFidelity:
        """FVU and L0 over the window; the share of features dead at its end."""
        return LayerFidelity(
            layer=self._layer,
            fvu=sum(s.squared_error for s in self._steps) / sum(s.variance for s in self._steps),
            l0=sum(s.l0 for s in self._steps) / len(self._steps),
            dead=self._steps[-1].dead,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """How far a run is.

    Attributes:
        tokens: trained on so far.
        total_tokens: to train on in all.
        tokens_per_second: of harvesting and training together, over the whole run.
        seconds_left: at that rate.
        layers: figures of the last steps, by layer.
        measured: quality on held-out text, after the steps at which it is measured.
    """

    tokens: int
    total_tokens: int
    tokens_per_second: float
    seconds_left: float
    layers: tuple[LayerFidelity, ...]
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """The record of the log."""
        record = {
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "layers": [layer.to_json() for layer in self.layers],
        }
        return record | ({"measured": self.measured.to_json()} if self.measured else {})


class Logged(Protocol):
    """What `MetricsLog` keeps: a record with its `tokens`."""

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""


class MetricsLog:
    """A JSONL file of progress records, in step with the run's checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, progress: Logged) -> None:
        """Add a record.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(progress.to_json()) + "\n")

    def truncate(self, tokens: int) -> None:
        """Drop records later than `tokens`, and one that a crash cut short."""
        if self._path.exists():
            write_text(self._path, "".join(x for x in self._whole_lines() if _tokens(x) <= tokens))

    def last_tokens(self) -> int:
        """The tokens of the last record; 0 for none."""
        return max(map(_tokens, self._whole_lines()), default=0)

    def records(self) -> list[dict[str, Any]]:
        """Every record, in the order of the run."""
        return [json.loads(line) for line in self._whole_lines()]

    def _whole_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]


def _tokens(line: str) -> int:
    return int(json.loads(line)["tokens"])
