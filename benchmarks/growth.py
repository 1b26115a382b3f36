"""How does the cost of our traces grow with tokens, nodes and layers?

One of the three is varied at a time, and a power law is fitted: the slope of log processor seconds
on the logarithm of what varies, with its 95% interval. From the repository's root:

    python -m benchmarks.growth

A model of `--layers` layers is built for each number. With `--long` a long prompt on the 8-layer
model is traced as well, once, for its memory.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.measure import hardware
from benchmarks.models import BenchmarkSize, build, random_prompt
from benchmarks.processes import OURS, Bench, numbers
from benchmarks.trace import PROMPT_SEED
from pellucid.core.files import write_text

RESULTS = Path(__file__).parent / "results" / "growth.json"
TOKENS, NODES = 64, 512  # what is held while something else varies
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A fitted power and its 95% interval (t, over the points' scatter about the line)."""

    slope: float
    low: float
    high: float
    points: int


def fit(x: Sequence[float], seconds: Sequence[float]) -> Slope:
    """Least squares of log seconds on log x; needs at least three points."""
    result = stats.linregress(np.log(x), np.log(seconds))
    half = float(stats.t.ppf(0.975, len(x) - 2) * result.stderr)
    slope = float(result.slope)
    return Slope(slope=slope, low=slope - half, high=slope + half, points=len(x))


def traced(folder: Path, size: BenchmarkSize, *, tokens: int, nodes: int, repeats: int) -> Record:
    """One measurement of ours on a model of that size, built when it is not there."""
    home = folder / f"layers{size.layers}-context{size.context}"
    if not (home / "transcoders" / "config.yaml").exists():
        build(home, size)
    ids = random_prompt(tokens, vocabulary=size.vocabulary, seed=PROMPT_SEED)
    bench = Bench(folder=home, peer_python="")
    _, measured = bench.run(OURS, ids, nodes, repeats=repeats)
    record = {"tokens": tokens, "nodes": nodes, "layers": size.layers, "ours": measured}
    print(
        f"{tokens} tokens, {nodes} nodes, {size.layers} layers: "
        f"{measured['cpu_s']:.2f} s, {measured['peak_mb']:.0f} MB",
        flush=True,
    )
    return record


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep models here (default: temporary)")
    parser.add_argument("--tokens", type=numbers, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--nodes", type=numbers, default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--layers", type=numbers, default=[2, 4, 8, 16])
    parser.add_argument("--long", type=numbers, default=[], help="tokens,nodes of a long prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure_axes(folder: Path, options: argparse.Namespace) -> dict[str, Record]:
    """Runs along each axis and the power fitted to them."""
    size = BenchmarkSize()
    axes: dict[str, list[tuple[BenchmarkSize, int, int]]] = {
        "tokens": [(size, tokens, NODES) for tokens in options.tokens],
        "nodes": [(size, TOKENS, nodes) for nodes in options.nodes],
        "layers": [(replace(size, layers=layers), TOKENS, NODES) for layers in options.layers],
    }
    result = {}
    for axis, settings in axes.items():
        if len(settings) < 3:
            continue
        runs = [
            traced(folder, each, tokens=tokens, nodes=nodes, repeats=options.repeats)
            for each, tokens, nodes in settings
        ]
        slope = fit([run[axis] for run in runs], [run["ours"]["cpu_s"] for run in runs])
        print(f"grows as {axis}^{slope.slope:.2f} [{slope.low:.2f}, {slope.high:.2f}]", flush=True)
        result[axis] = {"runs": runs, **asdict(slope)}
    return result


def main() -> None:
    options = parse_options()
    result: Record = json.loads(options.out.read_text()) if options.out.exists() else {}
    result |= {"date": datetime.now(UTC).date().isoformat(), "hardware": hardware()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        axes = measure_axes(folder, options)
        result["axes"] = result.get("axes", {}) | axes
        write_text(options.out, json.dumps(result, indent=2) + "\n")
        if options.long:
            tokens, nodes = options.long
            size = replace(BenchmarkSize(), context=tokens + 48)
            result["long"] = traced(folder, size, tokens=tokens, nodes=nodes, repeats=1)
            write_text(options.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
