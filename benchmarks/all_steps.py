"""Does one reusable trace serve every step of a chain of thought faster than a new one a step?

Chains of ten reductions of the specimen's Boolean and arithmetic tasks, deeper than it was trained
on, each within its context. Every step's graph explains the token that holds the step's result.
One side makes one `Trace` of the whole chain and asks it for every step's graph; the other traces
each step's prefix anew. The graphs must be the same. From the repository's root:

    python -m benchmarks.all_steps
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import pellucid
from benchmarks.measure import hardware, versions
from benchmarks.pellucid_trace import PACKAGES
from pellucid.attribution.trace import Trace, trace
from pellucid.core.files import write_text
from pellucid.graphs.graph import AttributionGraph
from pellucid.specimen import vocabulary
from pellucid.specimen.architecture import CONTEXT
from pellucid.specimen.corpora import arithmetic, boolean
from pellucid.specimen.corpora.chains import Grammar, reduce_fully

RESULTS = Path(__file__).parent / "results" / "all_steps.json"
STEPS = 10
GRAMMARS = (boolean.GRAMMAR, arithmetic.GRAMMAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain's token ids, and the position before each step's result: where it is predicted."""

    task: str
    ids: list[int]
    positions: list[int]


def chains(grammar: Grammar, rng: Random) -> Iterator[Chain]:
    """Random chains of `STEPS` reductions that fit the specimen's context."""
    ids_of = vocabulary.token_ids()
    while True:
        steps = reduce_fully(grammar, grammar.expression(rng, STEPS - rng.randrange(3)))
        words = [word for step in steps for word in [*step.tokens, "="]]
        words[-1] = "."
        if len(steps) != STEPS + 1 or len(words) >= CONTEXT:
            continue
        positions, start = [], 0
        for step, after in pairwise(steps):
            start += len(step.tokens) + 1
            assert words[start : start + len(after.tokens)] == after.tokens
            positions.append(start + step.start)  # of the token before the result: `<bos>` is 0
        yield Chain(
            task=grammar.task,
            ids=[vocabulary.BOS_ID, *(ids_of[word] for word in words)],
            positions=positions,
        )


def seconds(call: Any) -> tuple[float, Any]:
    """Processor seconds of a call, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def same_graphs(a: AttributionGraph, b: AttributionGraph) -> tuple[bool, float]:
    """Whether two graphs have the same nodes, and their edges' largest difference.

    The difference is relative to the largest edge, over the edges of both.
    """
    keys = [
        np.stack([g.nodes.kind, g.nodes.layer, g.nodes.position, g.nodes.index]) for g in (a, b)
    ]
    if keys[0].shape != keys[1].shape or not (keys[0] == keys[1]).all():
        return False, float("nan")
    pairs = [g.edges.target.astype(np.int64) * len(g.nodes) + g.edges.source for g in (a, b)]
    every = np.union1d(*pairs)
    weights = np.zeros((2, len(every)))
    for row, (graph, pair) in enumerate(zip((a, b), pairs, strict=True)):
        weights[row, np.searchsorted(every, pair)] = graph.edges.weight
    return True, float(np.abs(weights[0] - weights[1]).max() / np.abs(weights).max())


def run_chain(model: Any, dictionaries: Any, chain: Chain, max_features: int) -> dict[str, Any]:
    """Both ways over one chain."""
    anew, fresh = [], []
    for position in chain.positions:
        prefix = chain.ids[: position + 1]
        spent, graph = seconds(
            lambda p=prefix: trace(model, p, dictionaries, max_features=max_features, causal=False)
        )
        anew.append(spent)
        fresh.append(graph)
    start_s, shared = seconds(lambda: Trace(model, chain.ids, dictionaries))
    reused, same, worst = [], [], 0.0
    for position, graph in zip(chain.positions, fresh, strict=True):
        spent, again = seconds(
            lambda p=position: shared.graph(position=p, max_features=max_features)
        )
        reused.append(spent)
        equal, difference = same_graphs(again, graph)
        same.append(equal)
        worst = max(worst, difference) if equal else worst
    return {
        "task": chain.task,
        "tokens": len(chain.ids),
        "positions": chain.positions,
        "features": [int(graph.metadata["selected_features"]) for graph in fresh],
        "rows_anew": sum(int(graph.metadata["selected_features"]) for graph in fresh),
        "rows_shared": shared.rows.n_rows,
        "anew_s": anew,
        "start_s": start_s,
        "reused_s": reused,
        "ratio": sum(anew) / (start_s + sum(reused)),
        "same_nodes": sum(same),
        "max_edge_difference": worst,
    }


def record_caps(out: Path, cap: int, chains_done: list[dict[str, Any]]) -> None:
    """Write the results of one cap beside those of the others."""
    caps = json.loads(out.read_text())["caps"] if out.exists() else {}
    caps[str(cap)] = {
        "date": datetime.now(UTC).date().isoformat(),
        "median_ratio": statistics.median(record["ratio"] for record in chains_done),
        "chains": chains_done,
    }
    result = {"hardware": hardware(), "versions": versions(PACKAGES), "steps": STEPS, "caps": caps}
    write_text(out, json.dumps(result, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=20)
    parser.add_argument("--max-features", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = pellucid.load_model("specimen")
    dictionaries = pellucid.load_dictionaries("specimen")
    sources = [chains(grammar, Random(options.seed)) for grammar in GRAMMARS]
    records: list[dict[str, Any]] = []
    for number in range(options.chains):
        chain = next(sources[number % len(sources)])
        records.append(run_chain(model, dictionaries, chain, options.max_features))
        last = records[-1]
        print(
            f"{last['task']:10} {last['tokens']} tokens: anew {sum(last['anew_s']):.2f} s, reused "
            f"{last['start_s'] + sum(last['reused_s']):.2f} s, ratio {last['ratio']:.1f}, of rows "
            f"{last['rows_anew'] / last['rows_shared']:.1f}; "
            f"{last['same_nodes']} of {STEPS} graphs have the same nodes, edges differ by "
            f"{last['max_edge_difference']:.1e}",
            flush=True,
        )
        record_caps(options.out, options.max_features, records)


if __name__ == "__main__":
    main()
