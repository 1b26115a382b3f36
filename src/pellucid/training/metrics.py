"""What a run reports while it goes on: trailing figures and a log of them."""

import json
import logging
import re
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pellucid.core.files import storage_errors, write_text
from pellucid.harvest.fidelity import LayerFidelity
from pellucid.training.measure import Measured
from pellucid.training.step import StepMetrics

logger = logging.getLogger(__name__)

WINDOW_STEPS = 50
_CHECK = re.compile(rb', "crc32": "([0-9a-f]{8})"}$')


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
    """A JSONL file of progress records, in step with the run's checkpoints.

    Each has the CRC-32 of its line without it; one that was damaged is left out with a warning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, progress: Logged) -> None:
        """Add a record.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_checked(json.dumps(progress.to_json())))

    def truncate(self, tokens: int) -> None:
        """Drop records later than `tokens`, and one that a crash cut short."""
        if self._path.exists():
            kept = [line for line, record in self._whole() if record["tokens"] <= tokens]
            write_text(self._path, "".join(f"{line}\n" for line in kept))

    def last_tokens(self) -> int:
        """The tokens of the last record; 0 for none."""
        return max((record["tokens"] for _, record in self._whole()), default=0)

    def records(self) -> list[dict[str, Any]]:
        """Every record, in the order of the run."""
        return [record for _, record in self._whole()]

    def _whole(self) -> list[tuple[str, dict[str, Any]]]:
        """Lines and what they say, without one that a crash cut short, or that is damaged."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")
        records = {number: _record(line) for number, line in enumerate(lines, start=1) if line}
        damaged = [str(number) for number, record in records.items() if record is None]
        if damaged:
            logger.warning("left out damaged lines of %s: %s", self._path, ", ".join(damaged))
        return [(lines[n - 1].decode(), record) for n, record in records.items() if record]


def _checked(text: str) -> str:
    """A line of a record's JSON and its CRC-32."""
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is not what was written."""
    match = _CHECK.search(line)
    text = b"" if match is None else line[: match.start()] + b"}"
    if match is None or int(match[1], 16) != zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record
