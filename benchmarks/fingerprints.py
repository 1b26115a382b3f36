"""What does a step's fingerprint cost? Processor milliseconds a graph, family by family.

Graphs of real steps of the specimen (chains of 5 and 6 operators, the answer's token as target), of
as many features as asked for. From the repository's root:

    python -m benchmarks.fingerprints
"""

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pellucid
from benchmarks.measure import hardware, measure, versions
from pellucid.attribution.explain import Logit
from pellucid.core.files import write_text
from pellucid.graphs.graph import AttributionGraph
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.questions import draw_questions
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.fingerprints.bags import bags
from pellucid.verification.fingerprints.fingerprint import FAMILIES, column_names, fingerprint
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.steps.place import StepPlace, places

RESULTS = Path(__file__).parent / "results" / "fingerprints.json"
Record = dict[str, Any]


def step_graphs(chains: int, features: int) -> list[tuple[AttributionGraph, StepPlace, float]]:
    """Graphs of the steps of some chains, with the processor seconds that each took to trace."""
    model, dictionaries = pellucid.load_model("specimen"), pellucid.load_dictionaries("specimen")
    language = LANGUAGES["arithmetic"]
    found = []
    for written in write_chains(model, language, draw_questions("arithmetic", (5, 6), chains, 0)):
        if written.chain is None:
            continue
        traced = pellucid.Trace(model, written.ids, dictionaries)
        for _, place in places(written.chain):
            position = place.answer[0] - 1
            target = Logit(written.ids[position + 1])
            made, cost = measure(
                partial(traced.graph, target, position=position, max_features=features)
            )
            found.append((made, place, cost.cpu_s))
    return found


def costs(graph: AttributionGraph, place: StepPlace, features_per_layer: int) -> Record:
    """Milliseconds of one graph: in all, and by family given what the families share."""

    def milliseconds(function: Callable[[], object]) -> float:
        return 1000 * measure(function, repeats=3)[1].cpu_s

    def everything() -> None:
        measured = MeasuredGraph(graph, place)
        fingerprint(measured)
        bags(measured, features_per_layer)

    shared = MeasuredGraph(graph, place)
    fingerprint(shared)
    parts: dict[str, Callable[[], object]] = {
        name: lambda name=name: FAMILIES[name].measure(shared) for name in FAMILIES
    }
    parts["bags"] = lambda: bags(shared, features_per_layer)
    return {
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "all": milliseconds(everything),
        "pruning": milliseconds(lambda: MeasuredGraph(graph, place).pruned),
        "parts": {name: milliseconds(function) for name, function in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    graphs = step_graphs(options.chains, options.features)
    width = pellucid.load_dictionaries("specimen")[0].num_features
    costs(*graphs[0][:2], width)  # imports
    cases = [costs(graph, place, width) | {"trace": 1000 * s} for graph, place, s in graphs]
    median = {
        name: statistics.median(case[name] for case in cases)
        for name in cases[0]
        if name != "parts"
    }
    median["parts"] = {
        name: statistics.median(case["parts"][name] for case in cases) for name in cases[0]["parts"]
    }
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(["pellucid", "numpy", "scipy", "torch"]),
        "features": options.features,
        "columns": len(column_names(graphs[0][0].n_layers)),
        "graphs": len(cases),
        "largest_all": max(case["all"] for case in cases),
        "median": median,
    }
    write_text(options.out, json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
