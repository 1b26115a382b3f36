"""What every side of the patching benchmark is given and gives back.

Imported in each peer's own environment: standard library and torch only.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import measure, versions

Sweep = Callable[[], list[list[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchingTask:
    """Patch `resid_pre` of every layer and token of the corrupt prompt from the clean one.

    The value of a patch is logit(answer) - logit(other) at the last token.
    """

    model: str
    clean: list[int]
    corrupt: list[int]
    answer: int
    other: int
    layers: int
    repeats: int


def serve(prepare: Callable[[PatchingTask], dict[str, Sweep]], packages: list[str]) -> None:
    """Read the task, run every sweep that `prepare` gives, write values and costs.

    Args:
        prepare: given the task, returns sweeps by name; what it does itself is not timed.
        packages: whose versions to report.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sys.stdout = sys.stderr  # peers print as they please
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    task = PatchingTask(**json.loads(given.task.read_text()))
    record: dict[str, Any] = {"versions": versions([*packages, "torch", "transformers"])}
    with torch.no_grad():
        for name, sweep in prepare(task).items():
            sweep()
            values, cost = measure(sweep, repeats=task.repeats)
            record[name] = {"values": values, **asdict(cost)}
    given.out.write_text(json.dumps(record))
