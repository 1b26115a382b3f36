"""What a run reports while it goes on: trailing figures and a log of them."""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pellucid.core.files import storage_errors, write_text
from pellucid.harvest.fidelity import LayerFidelity
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
    """

    tokens: int
    total_tokens: int
    tokens_per_second: float
    seconds_left: float
    layers: tuple[LayerFidelity, ...]

    def to_json(self) -> dict[str, Any]:
        """The record of the log."""
        return {
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "layers": [layer.to_json() for layer in self.layers],
        }


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
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and _tokens(line) <= tokens]
        write_text(self._path, "".join(kept))


def _tokens(line: str) -> int:
    return int(json.loads(line)["tokens"])
