"""Which method finds the circuit? Models whose circuit is known, or can be run alone.

Three cases: Boolean chains compiled by hand (true wires known), a two-hop organism (known what the
first MLP must carry), and the packaged specimen (circuits judged by running them alone). On each,
the same nodes are ranked by our attribution graph, attribution patching, EAP-IG and controls, on
raw neurons and learned dictionaries, and circuits of equal size are compared. From the
repository's root, with pellucid importable:

    python -m benchmarks.faithfulness --out benchmarks/results/faithfulness.json

`docs/faithfulness.md` says how to read the tables.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.ground_truth import run_boolean, run_specimen, run_two_hop
from benchmarks.ground_truth.tables import tables
from benchmarks.measure import hardware, measure, versions

RESULTS = Path(__file__).parent / "results" / "faithfulness.json"
PACKAGES = ("pellucid", "torch", "transformers", "numpy")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=24, help="prompts a case")
    parser.add_argument("--cache", type=Path, help="keep the trained organism here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", type=Path, help="print the tables of an earlier run, run nothing")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    if options.show is not None:
        print(tables(json.loads(options.show.read_text())["cases"]))
        return
    torch.set_num_threads(options.threads)
    runs = {
        "boolean": lambda: run_boolean.run(options.prompts),
        "two_hop": lambda: run_two_hop.run(options.prompts, options.cache),
        "specimen": lambda: run_specimen.run(options.prompts),
    }
    cases, seconds = {}, {}
    for name, run in runs.items():
        cases[name], cost = measure(run)
        seconds[name] = cost.cpu_s
        print(f"{name}: {cost.cpu_s:.0f} s", file=sys.stderr, flush=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "threads": options.threads,
        "prompts": options.prompts,
        "cpu_seconds": seconds,
        "cases": cases,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(tables(cases))


if __name__ == "__main__":
    main()
