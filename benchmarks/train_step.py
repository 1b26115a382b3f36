"""What does a training step cost, beside its floor and beside sparsify and SAELens?

Every side runs in a process of its own, in its own environment, on the same activations. They take
turns, one step each a round, so that whatever else the machine does falls on all of them; a ratio
is the median over rounds of the ratio within a round. From the repository's root, with pellucid
importable:

    python -m benchmarks.train_step --sparsify-python PATH --saelens-python PATH

A side without an interpreter is left out. The environments: `benchmarks/peers/requirements-*.txt`.
Ratios are of processor seconds (all threads), which other jobs disturb less than elapsed time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.measure import hardware

RESULTS = Path(__file__).parent / "results" / "train_step.json"
OURS = "benchmarks.pellucid_step"
SPARSIFY = "benchmarks.peers.sparsify_step"
SAELENS = "benchmarks.peers.saelens_step"
SIDES = {  # name -> (module, mode)
    "encoder product, float32": (OURS, "product:float32"),
    "encoder product, bfloat16": (OURS, "product:bfloat16"),
    "pellucid, float32": (OURS, "transcoder:topk:float32"),
    "pellucid, bfloat16": (OURS, "transcoder:topk:bfloat16"),
    "pellucid SAE, float32": (OURS, "sae:topk:float32"),
    "pellucid SAE, bfloat16": (OURS, "sae:topk:bfloat16"),
    "pellucid skip, bfloat16": (OURS, "skip-transcoder:topk:bfloat16"),
    "pellucid BatchTopK, bfloat16": (OURS, "transcoder:batchtopk:bfloat16"),
    "pellucid JumpReLU, bfloat16": (OURS, "transcoder:jumprelu:bfloat16"),
    "pellucid ReLU, bfloat16": (OURS, "transcoder:relu:bfloat16"),
    "pellucid CLT of 2 layers, bfloat16": (OURS, "clt:topk:bfloat16"),
    "sparsify, default": (SPARSIFY, "default"),
    "sparsify, autocast": (SPARSIFY, "autocast"),
    "SAELens, default": (SAELENS, "default"),
    "SAELens, autocast": (SAELENS, "autocast"),
}
RATIOS = {  # what it is compared with -> (numerator, denominator, bound, which side of the bound)
    "float32 step / float32 product": ("pellucid, float32", "encoder product, float32", 1.4, "<="),
    "bfloat16 step / bfloat16 product": (
        "pellucid, bfloat16",
        "encoder product, bfloat16",
        1.7,
        "<=",
    ),
    "sparsify at its best / ours": ("sparsify, autocast", "pellucid, bfloat16", 2.0, ">="),
    "sparsify's default / ours, float32": ("sparsify, default", "pellucid, float32", 1.0, ">="),
    "SAELens' default / ours": ("SAELens, default", "pellucid, bfloat16", 12.0, ">="),
}


@dataclass(slots=True)
class Side:
    """One contestant's process and what its steps cost."""

    process: subprocess.Popen[str]
    versions: dict[str, str] = field(default_factory=dict)
    costs: list[dict[str, float]] = field(default_factory=list)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # some peers greet on import
                return json.loads(line)
        raise SystemExit(f"a side ended early: {' '.join(map(str, self.process.args))}")

    def step(self) -> None:
        assert self.process.stdin is not None
        print("step", file=self.process.stdin, flush=True)
        self.costs.append(self.answer())

    def median(self, figure: str) -> float:
        return statistics.median(cost[figure] for cost in self.costs)


def write_activations(path: Path, tokens: int, width: int) -> None:
    """x with the statistics of a sum of few directions, and y a nonlinear function of it."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * width, width, generator=generator)
    strengths = torch.relu(torch.randn(tokens, 4 * width, generator=generator) - 1.5)
    x = strengths @ directions / width**0.5
    y = torch.relu(x @ torch.randn(width, width, generator=generator)) / width**0.5
    save_file({"x": x.contiguous(), "y": y.contiguous()}, path)


def start_side(python: str, module: str, mode: str, flags: dict[str, Any]) -> Side:
    command = [python, "-W", "ignore", "-m", module, f"--mode={mode}"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    environment = os.environ | {"OMP_NUM_THREADS": str(flags["threads"])}
    pipe = subprocess.PIPE
    quiet = subprocess.DEVNULL
    return Side(
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment)
    )


def run(options: argparse.Namespace, threads: int) -> dict[str, Side]:
    """All sides in turn, `options.rounds` times after one round to warm up."""
    pythons = {
        OURS: sys.executable,
        SPARSIFY: options.sparsify_python,
        SAELENS: options.saelens_python,
    }
    with tempfile.TemporaryDirectory() as folder:
        activations = Path(folder) / "activations.safetensors"
        write_activations(activations, options.tokens, options.width)
        flags = {
            "activations": activations,
            "num-features": options.num_features,
            "k": options.k,
            "threads": threads,
        }
        sides = {
            name: start_side(pythons[module], module, mode, flags)
            for name, (module, mode) in SIDES.items()
            if pythons[module]
        }
        for side in sides.values():
            side.versions = side.answer()
        for number in range(options.rounds + 1):
            print(f"{threads} threads, round {number} of {options.rounds}", file=sys.stderr)
            for side in sides.values():
                side.step()
        for side in sides.values():
            del side.costs[0]  # the warm-up
            side.process.communicate()
    return sides


def ratios(sides: dict[str, Side]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, (above, below, bound, direction) in RATIOS.items():
        if above in sides and below in sides:
            pairs = zip(sides[above].costs, sides[below].costs, strict=True)
            ratio = statistics.median(a["cpu_s"] / b["cpu_s"] for a, b in pairs)
            met = ratio <= bound if direction == "<=" else ratio >= bound
            found[name] = {"ratio": ratio, "bound": f"{direction} {bound}", "met": met}
    return found


def report(sides: dict[str, Side], tokens: int, threads: int) -> dict[str, Any]:
    print(f"\n{threads} threads: median processor ms, elapsed ms, tokens/s (elapsed), peak MB")
    record: dict[str, Any] = {"threads": threads, "sides": {}}
    for name, side in sides.items():
        figures = {key: side.median(key) for key in ("cpu_s", "wall_s", "peak_mb")}
        figures["tokens_per_second"] = tokens / figures["wall_s"]
        record["sides"][name] = figures | {"versions": side.versions, "rounds": side.costs}
        print(
            f"  {name:36s}{figures['cpu_s'] * 1e3:9.0f}{figures['wall_s'] * 1e3:9.0f}"
            f"{figures['tokens_per_second']:9.0f}{figures['peak_mb']:8.0f}"
        )
    record["ratios"] = ratios(sides)
    for name, found in record["ratios"].items():
        verdict = "met" if found["met"] else "MISSED"
        print(f"  {name:36s}{found['ratio']:6.2f}  ({found['bound']}: {verdict})")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sparsify-python", help="interpreter of an environment with eai-sparsify")
    parser.add_argument("--saelens-python", help="interpreter of an environment with sae-lens")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--num-features", type=int, default=24576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=2048, help="batch size")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    runs = [report(run(options, threads), options.tokens, threads) for threads in options.threads]
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "setting": {
            name: getattr(options, name) for name in ("width", "num_features", "k", "tokens")
        },
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
