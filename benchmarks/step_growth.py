"""How does the cost of our training step grow with features and with k, and what is the product?

    python -m benchmarks.step_growth

One of the two is varied at a time on the problem of `benchmarks.train_step`, in bfloat16 on one
thread. The step and the bare encoder product take turns, each in a process of its own, so that
whatever else the machine does falls on both. A power law is fitted to each: the slope of log
processor seconds on the logarithm of what varies, with its 95% interval.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.growth import fit
from benchmarks.measure import hardware
from benchmarks.processes import numbers
from benchmarks.train_step import OURS, start_side, write_activations

RESULTS = Path(__file__).parent / "results" / "step_growth.json"
STEP, PRODUCT = "transcoder:topk:bfloat16", "product:bfloat16"
Record = dict[str, Any]


def measured(activations: Path, num_features: int, k: int, rounds: int) -> Record:
    """Median processor seconds of both, and the median share of the product in the step."""
    flags = {"activations": activations, "num-features": num_features, "k": k, "threads": 1}
    sides = {mode: start_side(sys.executable, OURS, mode, flags) for mode in (STEP, PRODUCT)}
    for side in sides.values():
        side.versions = side.answer()
    for _ in range(rounds + 1):
        for side in sides.values():
            side.step()
    for side in sides.values():
        del side.costs[0]  # the warm-up
        side.process.communicate()
    pairs = zip(sides[STEP].costs, sides[PRODUCT].costs, strict=True)
    record = {
        "num_features": num_features,
        "k": k,
        "step_s": sides[STEP].median("cpu_s"),
        "product_s": sides[PRODUCT].median("cpu_s"),
        "share": statistics.median(product["cpu_s"] / step["cpu_s"] for step, product in pairs),
        "peak_mb": sides[STEP].median("peak_mb"),
        "versions": sides[STEP].versions,
    }
    print(
        f"{num_features:7d} features, k {k:3d}: step {record['step_s'] * 1e3:6.0f} ms, product "
        f"{record['product_s'] * 1e3:6.0f} ms, {record['share']:.0%} of the step",
        flush=True,
    )
    return record


def axis(name: str, runs: list[Record]) -> Record:
    """The runs along one axis, and how the step and what it has beyond the product grow."""
    at = [run[name] for run in runs]
    found: Record = {"runs": runs}
    for what, seconds in (
        ("step", [run["step_s"] for run in runs]),
        ("beyond the product", [run["step_s"] - run["product_s"] for run in runs]),
    ):
        found[what] = slope = asdict(fit(at, seconds))
        print(
            f"{what} grows as {name}^{slope['slope']:.2f} "
            f"[{slope['low']:.2f}, {slope['high']:.2f}]",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=2048, help="batch size")
    parser.add_argument("--num-features", type=numbers, default=[4096, 16384, 65536, 131072])
    parser.add_argument("--at-k", type=int, default=32, help="held while the features vary")
    parser.add_argument("--k", type=numbers, default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--at-features", type=int, default=24576, help="held while k varies")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        activations = Path(folder) / "activations.safetensors"
        write_activations(activations, options.tokens, options.width)
        axes = {
            name: axis(name, [measured(activations, *each, options.rounds) for each in settings])
            for name, settings in (
                ("num_features", [(features, options.at_k) for features in options.num_features]),
                ("k", [(options.at_features, k) for k in options.k]),
            )
        }
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "setting": {name: getattr(options, name) for name in ("width", "tokens", "rounds")},
        "axes": axes,
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
