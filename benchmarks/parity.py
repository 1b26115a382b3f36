"""Are our graphs those of circuit-tracer?

Tiny random models of three families with every kind of transcoder are traced by both, uncapped, and
compared: active features, every edge, scores, influence and pruned sets. From the repository's
root, with pellucid importable:

    python -m benchmarks.parity --peer-python PATH/TO/circuit-tracer/bin/python

Two conventions differ and are set aside here. circuit-tracer's TopK keeps the k largest values
whatever their sign, ours those that are positive, so the TopK cases have biases that make them
positive. At the first position (BOS) it pulls gradients through a transcoder's skip connection,
where we take the MLP's output as a constant; so in the skip cases the first token's effects are
left out on both sides.
"""

import argparse
import json
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from benchmarks.measure import hardware, versions
from benchmarks.peers.cases import FAMILIES, KINDS, PROMPT, write_peer_case
from benchmarks.pellucid_trace import PACKAGES, UNCAPPED
from benchmarks.processes import PEER
from pellucid.attribution.trace import trace
from pellucid.core.files import write_text
from pellucid.graphs.graph import AttributionGraph
from tests.support.circuit_tracer import compare, compare_judgement

RESULTS = Path(__file__).parent / "results" / "parity.json"
BAR = 1e-5  # of the largest edge; circuit-tracer's own backends differ by about 1e-6

Record = dict[str, Any]


def run_cases(cases: list[tuple[str, str]], folder: Path, peer_python: str) -> list[Record]:
    """Trace every (family, kind) on both sides and compare; one process serves the peer's side."""
    # TransformerLens takes any path with a family's name in it for a published model.
    homes = {case: folder / str(number) for number, case in enumerate(cases)}
    written = {case: write_peer_case(*case, home) for case, home in homes.items()}
    jobs = folder / "jobs"
    jobs.write_text("".join(f"{job(case, home)}\n" for case, home in homes.items()))
    command = [peer_python, "-W", "ignore", "-m", PEER, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"circuit-tracer failed:\n{done.stderr}")
    records = []
    for case, (model, dictionaries) in written.items():
        graph = trace(model, PROMPT, dictionaries, max_features=UNCAPPED, causal=False)
        records.append(compared(case, graph, homes[case]))
        print(line(records[-1]), flush=True)
    return records


def job(case: tuple[str, str], folder: Path) -> str:
    """The peer's command line for a case."""
    words = [f"--model={folder / 'model'}", f"--transcoders={folder / 'transcoders'}"]
    words += [f"--ids={','.join(map(str, PROMPT))}", "--batch-size=64", f"--out={folder}"]
    words += ["--judge", *(["--without-first-token"] if case[1] == "skip" else [])]
    return shlex.join(words)


def compared(case: tuple[str, str], graph: AttributionGraph, folder: Path) -> Record:
    """Our graph of a case beside the one in its folder."""
    family, kind = case
    theirs = load_file(folder / "graph.safetensors")
    edges = asdict(compare(graph, theirs, skip=kind == "skip"))
    judged = asdict(compare_judgement(graph, theirs, skip=kind == "skip"))
    record: Record = {"family": family, "kind": kind, **edges, **judged}
    record["edges"] = len(graph.edges.weight)
    record["passes"] = passes(record)
    record["peer_versions"] = json.loads((folder / "measurement.json").read_text())["versions"]
    return record


def passes(record: Record) -> bool:
    """Same features, edges and scores within the bar, same pruned sets."""
    same = ("differing_features", "differing_nodes", "differing_edges")
    close = ("max_edge_difference", "score_difference", "influence_difference")
    return not any(record[name] for name in same) and all(record[name] <= BAR for name in close)


def line(record: Record) -> str:
    """One case as a line on the terminal."""
    return (
        f"{record['family']:7} {record['kind']:8} features {record['shared_features']:4} "
        f"({record['differing_features']} differ)  edges {record['max_edge_difference']:.1e}  "
        f"influence {record['influence_difference']:.1e}  scores {record['score_difference']:.1e}  "
        f"pruned {record['pruned_nodes']} nodes ({record['differing_nodes']} differ), "
        f"{record['pruned_edges']} edges ({record['differing_edges']} differ)  "
        f"{'ok' if record['passes'] else 'FAILS'}"
    )


def names(allowed: Sequence[str]) -> Any:
    """A comma-separated list of names, each one of `allowed`."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := sorted(set(chosen) - set(allowed)):
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
        return chosen

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="Python of circuit-tracer")
    parser.add_argument("--families", type=names(FAMILIES), default=FAMILIES)
    parser.add_argument("--kinds", type=names(KINDS), default=KINDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(family, kind) for family in options.families for kind in options.kinds]
    with tempfile.TemporaryDirectory() as folder:
        records = run_cases(cases, Path(folder), options.peer_python)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "prompt": PROMPT,
        "bar": BAR,
        "cases": records,
    }
    write_text(options.out, json.dumps(result, indent=2) + "\n")
    if not all(record["passes"] for record in records):
        raise SystemExit("not all cases agree")


if __name__ == "__main__":
    main()
