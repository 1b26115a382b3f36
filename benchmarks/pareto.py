"""Which kind of dictionary gives the most fidelity at equal sparsity on the specimen?

    python -m benchmarks.pareto --work FOLDER

One thread, held-out text, all layers. It goes on in the same folder after an interruption.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.measure import hardware
from pellucid import api
from pellucid.cli.values import parse_count, parse_counts, parse_seeds
from pellucid.core.manifest import software_versions
from pellucid.training.sweep import Grid, SweepProgress, sweep

RESULTS = Path(__file__).parent / "results" / "pareto.json"
KINDS = ("transcoder", "skip-transcoder", "clt", "sae")


def show(now: SweepProgress) -> None:
    """One line as each training begins or is measured."""
    if now.training is None:
        print(f"{now.run} of {now.runs}: {now.name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--k", type=parse_counts, default=(4, 12, 32))
    parser.add_argument("--features", type=parse_counts, default=(3072,))
    parser.add_argument("--seeds", type=parse_seeds, default=(0, 1))
    parser.add_argument("--tokens", type=parse_count, default=300_000)
    parser.add_argument("--measure-tokens", type=parse_count, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    result = sweep(
        api.load_model("specimen"),
        "specimen",
        options.work / "sweep",
        Grid(k=options.k, features=options.features, kinds=KINDS, seeds=options.seeds),
        tokens=options.tokens,
        measure_tokens=options.measure_tokens,
        cache=options.work / "cache",
        on_progress=show,
    )
    found = result.to_json()
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": software_versions(),
        "tokens": options.tokens,
        "measure_tokens": options.measure_tokens,
        "rows": found["rows"],
        "front": found["front"],
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
