"""Is tracing faster and smaller than circuit-tracer's, for the same graph?

Traces the same prompts with the same model and transcoders on both sides, each run in a process of
its own, and compares time, memory and the graphs themselves. circuit-tracer runs at every batch
size given and counts with its fastest. From the repository's root, with pellucid importable:

    python -m benchmarks.trace --peer-python PATH/TO/circuit-tracer/bin/python

The peer's environment is `benchmarks/peers/requirements-circuit-tracer.txt`. The ratio is of
processor seconds, which other jobs on the machine disturb less than elapsed time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.measure import hardware
from benchmarks.models import BenchmarkSize, build, random_prompt
from pellucid.graphs.graph import AttributionGraph
from tests.support.circuit_tracer import compare

PROMPT_SEED = 7
PEER = "benchmarks.peers.circuit_tracer_trace"
OURS = "benchmarks.pellucid_trace"
RESULTS = Path(__file__).parent / "results" / "trace.json"
TABLE = {  # heading -> (path in a case's record, format)
    "tokens": ("tokens", "d"),
    "nodes": ("features", "d"),
    "theirs s": ("theirs.cpu_s", ".2f"),
    "batch": ("theirs.batch_size", "d"),
    "ours s": ("ours.cpu_s", ".2f"),
    "ratio": ("ratio", ".1f"),
    "theirs MB": ("theirs.peak_mb", ".0f"),
    "ours MB": ("ours.peak_mb", ".0f"),
    "active": ("active", "d"),
    "differ": ("active_differing", "d"),
    "shared": ("graph.shared_features", "d"),
    "max edge diff": ("graph.max_edge_difference", ".1e"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every run of one benchmark has in common.

    `folder` holds the model, the transcoders and each side's last run.
    """

    folder: Path
    peer_python: str
    threads: int

    def run(
        self, module: str, ids: list[int], cap: int | None, *, repeats: int, **options: int
    ) -> tuple[Path, dict[str, Any]]:
        """Measure one side in a new process; returns the folder it wrote and its measurement."""
        out = self.folder / "-".join([module, *map(str, options.values())])
        flags = {
            "model": self.folder / "model",
            "transcoders": self.folder / "transcoders",
            "ids": ",".join(map(str, ids)),
            "threads": self.threads,
            "repeats": repeats,
            "out": out,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        if cap is not None:
            flags["max-features"] = cap
        command = [self.peer_python if module == PEER else sys.executable, "-W", "ignore"]
        command += ["-m", module, *(f"--{name}={value}" for name, value in flags.items())]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{module} failed:\n{done.stderr}")
        return out, json.loads((out / "measurement.json").read_text()) | options


def run_case(
    bench: Bench, ids: list[int], cap: int | None, *, batch_sizes: list[int], repeats: int
) -> dict[str, Any]:
    """Both sides on one prompt and one cap on feature nodes (None: all of them)."""
    our_folder, ours = bench.run(OURS, ids, cap, repeats=repeats)
    peers = [bench.run(PEER, ids, cap, repeats=repeats, batch_size=batch) for batch in batch_sizes]
    peer_folder, fastest = min(peers, key=lambda peer: peer[1]["cpu_s"])
    theirs = load_file(peer_folder / "graph.safetensors")
    graph = AttributionGraph.load(our_folder / "graph.safetensors")
    active = (load_file(our_folder / "active.safetensors")["active"], theirs["active_features"])
    union = np.unique(np.concatenate(active), axis=0)
    return {
        "tokens": len(ids),
        "cap": cap,
        "features": len(theirs["selected_features"]),
        "ours": ours,
        "theirs": fastest,
        "their_seconds_by_batch": {peer["batch_size"]: peer["cpu_s"] for _, peer in peers},
        "ratio": fastest["cpu_s"] / ours["cpu_s"],
        "wall_ratio": fastest["wall_s"] / ours["wall_s"],
        "active": len(active[1]),
        "active_differing": 2 * len(union) - len(active[0]) - len(active[1]),
        "graph": asdict(compare(graph, theirs)),
    }


def table_row(record: dict[str, Any]) -> str:
    """One case as a line of the table."""
    cells = []
    for heading, (path, form) in TABLE.items():
        value: Any = record
        for key in path.split("."):
            value = value[key]
        cells.append(f"{value:{len(heading)}{form}}")
    return "  ".join(cells)


def numbers(text: str) -> list[int]:
    """A comma-separated list of numbers."""
    return [int(part) for part in text.split(",")]


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="Python of circuit-tracer")
    parser.add_argument("--folder", type=Path, help="keep the model here (default: temporary)")
    parser.add_argument("--tokens", type=numbers, default=[16, 32, 64])
    parser.add_argument("--nodes", type=numbers, default=[512, 2048])
    parser.add_argument("--uncapped", type=numbers, default=[16], help="prompt lengths")
    parser.add_argument("--batch-sizes", type=numbers, default=[8, 16, 32, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    size = BenchmarkSize()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(
            folder=options.folder or Path(temporary),
            peer_python=options.peer_python,
            threads=options.threads,
        )
        if not (bench.folder / "transcoders").exists():
            build(bench.folder, size)
        print("  ".join(TABLE), flush=True)
        records = []
        cases = [(length, cap) for length in options.tokens for cap in options.nodes]
        for length, cap in [*cases, *((length, None) for length in options.uncapped)]:
            ids = random_prompt(length, vocabulary=size.vocabulary, seed=PROMPT_SEED)
            records.append(
                run_case(bench, ids, cap, batch_sizes=options.batch_sizes, repeats=options.repeats)
            )
            print(table_row(records[-1]), flush=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "threads": options.threads,
        "model": asdict(size),
        "cases": records,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
