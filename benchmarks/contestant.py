"""One side of the step benchmark: a process that takes a training step whenever it is asked to.

Imported by our side and by each peer's, in that side's own environment: standard library, torch and
safetensors only. Each line on standard input asks for one step; each answer is one JSON line.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.measure import measure, versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The problem that every side solves: x predicts y (an SAE predicts x) with k of F features."""

    x: Tensor
    y: Tensor
    num_features: int
    k: int
    mode: str


def _finished(step: Callable[[], object]) -> Callable[[], object]:
    """The step, returning when the GPU has done it."""

    def run() -> object:
        result = step()
        torch.cuda.synchronize()
        return result

    return run


def serve(start: Callable[[Setting], Callable[[], object]], packages: list[str]) -> None:
    """Answer requests with what a step costs: first the versions of `packages`, then each step.

    Args:
        start: given the setting, prepares everything and returns the step.
        packages: whose versions to report.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--activations", type=Path, required=True)
    parser.add_argument("--num-features", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument(
        "--device", default="cpu", help="a GPU is waited for within the step's time"
    )
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print as they please

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tensors = load_file(options.activations, device=options.device)
    setting = Setting(num_features=options.num_features, k=options.k, mode=options.mode, **tensors)
    step = start(setting)
    print(json.dumps(versions(packages)), file=answers, flush=True)
    for _ in sys.stdin:
        _, cost = measure(step if options.device == "cpu" else _finished(step))
        print(json.dumps(asdict(cost)), file=answers, flush=True)
