"""How far can estimates by gradients be trusted, and what does a tuned lens add?

On two-hop prompts of the specimen: estimates of all patches of heads, queries, keys and neurons by
AtP, AtP* and EAP-IG, the best 20 and a random 20 of the rest patched for real; edges by EAP-IG the
same. Means over pairs with 95% bootstrap intervals of: the rank agreement of score and exact
effect, the share of the random rest that beats the median candidate, and the largest effect in it.
Then the divergence of both lenses from the final prediction on held-out text, beside their
controls. From the repository's root:

    python -m benchmarks.screening

Results are written to `results/screening.json`.
"""

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import hardware
from benchmarks.two_hop_swaps import TWO_HOP, draw_pairs
from pellucid import api
from pellucid.core.files import write_text
from pellucid.interventions.tracing import (
    contrast,
    edge_scores,
    evaluate_lenses,
    screen,
    train_tuned_lens,
)

RESULTS = Path(__file__).parent / "results" / "screening.json"
SITES = ("z", "q", "k", "neuron")
METHODS = ("atp", "atp*", "eap-ig")
BOOTSTRAPS = 2000
Found = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    given = parser.parse_args()
    model = api.load_model("specimen")
    found: dict[tuple[str, str], Found] = defaultdict(lambda: defaultdict(list))
    for each in draw_pairs(given.pairs):
        texts = [TWO_HOP.format(relation=each.relation, place=p) for p in (each.place, each.donor)]
        pair = contrast(model, *texts)
        for site in SITES:
            for method in METHODS:
                result = screen(model, pair, site, method=method, direction="noise")
                note(found[site, method], result.agreement, result.missed, result.largest_missed)
        edges = edge_scores(model, pair)
        note(found["edges", "eap-ig"], edges.agreement, edges.missed_share, edges.largest_missed)
    rows = [
        {"site": site, "method": method} | {name: summary(v) for name, v in figures.items()}
        for (site, method), figures in found.items()
    ]
    for row in rows:
        figures = "  ".join(
            f"{name} {row[name]['mean']:.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
            for name in ("agreement", "missed", "largest_missed")
        )
        print(f"{row['site']:8} {row['method']:8} {figures}")
    lens = train_tuned_lens(model, "specimen")
    kl = evaluate_lenses(model, lens, "specimen")
    for name, values in kl.items():
        print(f"{name:10}", " ".join(f"{value:7.3f}" for value in values))
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "pairs": given.pairs,
        "screens": rows,
        "lens_kl": kl,
    }
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


def note(figures: Found, *values: float | None) -> None:
    """Keep a screen's figures, where they are defined."""
    for name, value in zip(("agreement", "missed", "largest_missed"), values, strict=True):
        if value is not None:
            figures[name].append(value)


def summary(values: list[float]) -> dict[str, float]:
    """Mean over pairs with its 95% bootstrap interval."""
    data, rng = np.array(values), np.random.default_rng(0)
    means = data[rng.integers(len(data), size=(BOOTSTRAPS, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(data.mean()), "low": float(low), "high": float(high), "n": len(data)}


if __name__ == "__main__":
    main()
