"""Is tracing faster and smaller than circuit-tracer's, for the same graph?

Traces the same prompts with the same model and transcoders on both sides, each run in a process of
its own, and compares time, memory and the graphs themselves. From the repository's root, with
pellucid importable:

    python -m benchmarks.trace --peer-python PATH/TO/circuit-tracer/bin/python

The peer's environment is `benchmarks/peers/requirements-circuit-tracer.txt`. circuit-tracer runs at
every batch size given on prompts up to `--try-up-to` tokens and counts with its fastest; on longer
ones at the size that was fastest on the longest of those, for as many nodes. A run of it ends after
`--limit` processor seconds; then the ratio is a lower bound, and larger caps on that prompt, which
take longer still, are not tried.

Ratios are of processor seconds, which other jobs on the machine disturb less than elapsed time. The
results are written case by case; cases that are not run again stay as they are.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.measure import hardware
from benchmarks.models import BenchmarkSize, build, random_prompt
from benchmarks.processes import OURS, PEER, Bench, numbers
from pellucid.core.files import write_text
from pellucid.graphs.graph import AttributionGraph
from tests.support.circuit_tracer import compare

PROMPT_SEED = 7
RESULTS = Path(__file__).parent / "results" / "trace.json"
LARGEST_COMPARED = 2**30  # bytes of the peer's dense matrix

Record = dict[str, Any]


def run_case(bench: Bench, ids: list[int], cap: int, *, batches: list[int], limit: int) -> Record:
    """Both sides on one prompt and one cap on feature nodes."""
    our_folder, ours = bench.run(OURS, ids, cap, repeats=3 if len(ids) <= 64 else 1, work=True)
    record: Record = {
        "tokens": len(ids),
        "cap": cap,
        "date": datetime.now(UTC).date().isoformat(),
        "ours": ours,
    }
    peers = [
        bench.run(PEER, ids, cap, repeats=1, batch_size=batch, limit=limit) for batch in batches
    ]
    finished = [peer for peer in peers if peer[1] is not None]
    record["their_seconds_by_batch"] = {
        batch: None if peer is None else peer["cpu_s"]
        for batch, (_, peer) in zip(batches, peers, strict=True)
    }
    if not finished:
        return record | not_finished(ours, limit)
    folder, fastest = min(finished, key=lambda peer: peer[1]["cpu_s"])
    return record | {
        "theirs": fastest,
        "ratio": fastest["cpu_s"] / ours["cpu_s"],
        "ratio_is_lower_bound": False,
        "memory_ratio": fastest["peak_mb"] / ours["peak_mb"],
        "graph": graph_difference(our_folder, folder),
    }


def not_finished(ours: Record, limit: int) -> Record:
    """What a run of the peer that was ended, or not begun, says."""
    return {
        "theirs": None,
        "their_limit_s": limit,
        "ratio": limit / ours["cpu_s"],
        "ratio_is_lower_bound": True,
        "memory_ratio": None,
        "graph": None,
    }


def graph_difference(our_folder: Path, their_folder: Path) -> Record | None:
    """Active features and edges that differ; None when the peer's matrix is too large to load."""
    if (their_folder / "graph.safetensors").stat().st_size > LARGEST_COMPARED:
        return None
    theirs = load_file(their_folder / "graph.safetensors")
    graph = AttributionGraph.load(our_folder / "graph.safetensors")
    active = (load_file(our_folder / "active.safetensors")["active"], theirs["active_features"])
    union = np.unique(np.concatenate(active), axis=0)
    differing = 2 * len(union) - len(active[0]) - len(active[1])
    return asdict(compare(graph, theirs)) | {"active_differing": differing}


def batches_for(length: int, cap: int, records: list[Record], options: Any) -> list[int]:
    """All batch sizes on short prompts, else the fastest of the longest prompt tried."""
    if length <= options.try_up_to:
        return options.batch_sizes
    tried = [
        r for r in records if r["tokens"] <= options.try_up_to and r["cap"] == cap and r["theirs"]
    ]
    if not tried:
        return options.batch_sizes
    return [max(tried, key=lambda r: r["tokens"])["theirs"]["batch_size"]]


def is_hopeless(length: int, cap: int, records: list[Record]) -> bool:
    """Whether the peer did not finish a smaller cap on this prompt."""
    return any(
        r["tokens"] == length and r["cap"] < cap and r["ratio_is_lower_bound"] for r in records
    )


def line(record: Record) -> str:
    """One case as a line on the terminal."""
    ours, theirs = record["ours"], record["theirs"]
    seconds = f"{theirs['cpu_s']:.2f}" if theirs else f">{record['their_limit_s']}"
    sign = ">" if record["ratio_is_lower_bound"] else ""
    work = ours["work"]
    parts = [
        f"{record['tokens']} tokens, {ours['features']} nodes of {ours['active']}:",
        f"theirs {seconds} s, ours {ours['cpu_s']:.2f} s, ratio {sign}{record['ratio']:.1f};",
        f"floor {work['floor_s']:.2f} s ({work['floor_s'] / ours['cpu_s']:.0%});",
        f"MB {theirs['peak_mb'] if theirs else float('nan'):.0f} and {ours['peak_mb']:.0f}",
    ]
    if record["graph"] is not None:
        parts.append(f"; edges differ by {record['graph']['max_edge_difference']:.1e}")
    return " ".join(parts)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="Python of circuit-tracer")
    parser.add_argument("--folder", type=Path, help="keep models and runs (default: temporary)")
    parser.add_argument("--tokens", type=numbers, default=[16, 32, 64, 128, 512])
    parser.add_argument("--nodes", type=numbers, default=[512, 2048, 7500])
    parser.add_argument("--batch-sizes", type=numbers, default=[4, 16, 64])
    parser.add_argument("--try-up-to", type=int, default=32, help="tokens")
    parser.add_argument("--limit", type=int, default=360, help="processor seconds of a peer's run")
    parser.add_argument(
        "--keep-peer", action="store_true", help="use the folder's runs of the peer"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def stored(path: Path, header: Record) -> list[Record]:
    """The cases of an earlier run on the same machine and model."""
    if not path.exists():
        return []
    result = json.loads(path.read_text())
    if any(result.get(name) != value for name, value in header.items()):
        print("earlier results are of another machine or model; starting anew", file=sys.stderr)
        return []
    return result["cases"]


def main() -> None:
    options = parse_options()
    size = BenchmarkSize()
    header = {"hardware": hardware(), "threads": options.threads, "model": asdict(size)}
    header = json.loads(json.dumps(header))
    records = stored(options.out, header)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "transcoders").exists():
            build(folder, size)
        bench = Bench(
            folder=folder,
            peer_python=options.peer_python,
            threads=options.threads,
            keep_peer=options.keep_peer,
        )
        for length in options.tokens:
            ids = random_prompt(length, vocabulary=size.vocabulary, seed=PROMPT_SEED)
            for cap in options.nodes:
                hopeless = is_hopeless(length, cap, records)
                batches = [] if hopeless else batches_for(length, cap, records, options)
                record = run_case(bench, ids, cap, batches=batches, limit=options.limit)
                print(line(record), flush=True)
                records = [r for r in records if (r["tokens"], r["cap"]) != (length, cap)]
                records.append(record)
                records.sort(key=lambda r: (r["tokens"], r["cap"]))
                write_text(options.out, json.dumps(header | {"cases": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
