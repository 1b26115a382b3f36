"""Do graphs predict interventions, at which depth, and what is lost by what they hold fixed?

Traces held-out prompts of every task of the specimen (`--tasks` items each), runs the causal check
of each, and prints means over prompts with 95% bootstrap intervals over prompts: for every place
read the rank correlation of predicted with measured effects, and the same for predictions that let
more of the model answer, always beside random features. With `--groups` also how often proposed
supernodes are accepted, beside random groups of the same sizes. From the repository's root:

    python -m benchmarks.causal_checks --tasks 2 --groups

Results are written to `results/causal_checks.json`.
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import hardware
from pellucid import api
from pellucid.attribution.checks.causal import causal_check
from pellucid.attribution.checks.groups import check_groups
from pellucid.attribution.trace import Trace
from pellucid.core.files import write_text
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.proposals import propose
from pellucid.graphs.prune import surviving
from pellucid.graphs.tables import FEATURE
from pellucid.specimen.tasks import TASK_NAMES, evaluation_items

RESULTS = Path(__file__).parent / "results" / "causal_checks.json"
SEED = 1
BOOTSTRAPS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=2, help="prompts a task")
    parser.add_argument("--groups", action="store_true", help="also test supernodes")
    arguments = parser.parse_args()
    model, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    figures: dict[str, list[float]] = defaultdict(list)
    seen: set[tuple[int, ...]] = set()
    for task in TASK_NAMES:
        for item in evaluation_items(task, SEED, arguments.tasks):
            ids = item.ids[1 : item.spans[-1][0]]
            if ids in seen:
                continue
            seen.add(ids)
            whole = Trace(model, ids, dictionaries)
            graph = whole.graph()
            add_figures(figures, causal_check(whole.linear, graph) or {})
            if arguments.groups:
                add_groups(figures, whole, graph)
    table = {name: summary(values) for name, values in figures.items()}
    for name, row in table.items():
        mean, low, high = (f"{row[key]:8.2g}" for key in ("mean", "low", "high"))
        print(f"{name:60} {mean} [{low}, {high}]  n {row['n']}")
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "prompts": len(seen),
        "figures": table,
    }
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


def add_figures(figures: dict[str, list[float]], check: dict[str, Any]) -> None:
    """The figures of one prompt's causal check, under names that sort into a table."""
    for name in ("attention_frozen", "real", "random"):
        put(figures, f"logit, path sums, {name}", check.get(f"spearman_{name}"))
    for record in check.get("answers", []):
        start = f"{record['target']}, answers: {record['answer']}"
        for name in ("real", "random"):
            put(figures, f"{start}, {name}", record[f"spearman_{name}"])
        put(figures, f"{start}, size ratio", record["size_ratio"])
    for record in check.get("by_depth", []):
        start = f"{record['target']} of layer {record['layer']}, changed: {record['source_depth']}"
        for name in ("real", "random"):
            put(figures, f"{start}, {name}", record[f"spearman_{name}"])
        put(figures, f"{start}, frozen error", record["frozen_max_error"])


def add_groups(figures: dict[str, list[float]], whole: Trace, graph: AttributionGraph) -> None:
    """The share of proposals accepted, and of groups of as many features drawn at random."""
    nodes, edges = surviving(graph, 0.8, 0.98)
    numbers = np.flatnonzero(nodes)
    proposed = [numbers[list(g.nodes)] for g in propose(graph.subgraph(nodes, edges))[:10]]
    if not proposed:
        return
    rng = np.random.default_rng(SEED)
    features = np.flatnonzero(graph.nodes.is_kind(FEATURE) & nodes)
    drawn = [rng.choice(features, len(group), replace=False) for group in proposed]
    for name, groups in (("proposed", proposed), ("random", drawn)):
        checks = check_groups(whole.linear, graph, groups)
        put(figures, f"groups, accepted, {name}", np.mean([check.accepted for check in checks]))
        for error in ("error_real", "error_norms", "error_parts"):
            values = [getattr(check, error) for check in checks]
            known = [value for value in values if value is not None]
            put(figures, f"groups, {error}, {name}", np.median(known) if known else None)


def put(figures: dict[str, list[float]], name: str, value: float | None) -> None:
    """Note a figure if it is defined."""
    if value is not None:
        figures[name].append(float(value))


def summary(values: list[float]) -> dict[str, float]:
    """Mean over prompts with its 95% bootstrap interval."""
    data, rng = np.array(values), np.random.default_rng(SEED)
    means = data[rng.integers(len(data), size=(BOOTSTRAPS, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": data.mean(), "low": float(low), "high": float(high), "n": len(data)}


if __name__ == "__main__":
    main()
