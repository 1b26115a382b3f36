"""How many of the features that activations are made of does a dictionary find?

Trains dictionaries on the synthetic hierarchical truth of `pellucid.evaluation.ground_truth` (1,024
features in 128 dimensions), each on as many truths as there are seeds, and measures them beside the
true directions, random ones and principal components. From the repository's root, with pellucid
importable (about four minutes on one thread):

    python -m benchmarks.recovery [--seeds 3] [--tokens 500000]

A row is a kind of truth and settings of `TrainConfig`: to measure another activation, add one.
Intervals are Student's, 95%, over seeds; a seed draws the truth, the training tokens and what the
parameters start from.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student

from benchmarks.measure import hardware, versions
from pellucid.dictionaries import Dictionary
from pellucid.evaluation.ground_truth import (
    GroundTruth,
    GroundTruthConfig,
    GroundTruthStream,
    measure_recovery,
)
from pellucid.evaluation.ground_truth.baselines import (
    pca_dictionary,
    random_dictionary,
    truth_dictionary,
)
from pellucid.training import TrainConfig
from pellucid.training.layer import LayerTraining

RESULTS = Path(__file__).parent / "results" / "recovery.json"
BASELINE_K = 5
TRAINING = {"batch_tokens": 1024, "learning_rate": 1e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to train, and the kind of truth to train it on."""

    name: str
    truth: str = "sae"
    settings: dict[str, Any]


ROWS = (
    *(
        Row(
            name=f"SAE, TopK {k}, {width:,}",
            settings={"kind": "sae", "num_features": width, "k": k},
        )
        for width in (1024, 2048)
        for k in (5, 10)
    ),
    Row(
        name="transcoder, TopK 5, 1,024",
        truth="transcoder",
        settings={"kind": "transcoder", "num_features": 1024, "k": 5},
    ),
)


def trained(truth: GroundTruth, settings: dict[str, Any], *, tokens: int, seed: int) -> Dictionary:
    """A dictionary trained on a truth by the ordinary trainer."""
    config = TrainConfig(**(TRAINING | settings))
    stream = GroundTruthStream(truth, batch_tokens=config.batch_tokens, seed=seed)
    training = None
    for _ in range(max(1, tokens // config.batch_tokens)):
        values = next(stream).values
        x, y = values[truth.read_site], values[truth.write_site]
        if training is None:
            training = LayerTraining.start(
                config,
                x,
                y,
                read_site=truth.read_site,
                write_site=truth.write_site,
                total_tokens=tokens,
                generator=torch.Generator().manual_seed(seed),
            )
        training.step(x, y)
    assert training is not None
    return training.dictionary()


def baselines(truth: GroundTruth, *, seed: int) -> Iterator[tuple[str, Dictionary]]:
    """Dictionaries that nobody trained."""
    yield "the true directions", truth_dictionary(truth, k=BASELINE_K)
    yield "random directions", random_dictionary(truth, latents=1024, k=BASELINE_K, seed=seed)
    yield "principal components", pca_dictionary(truth, k=BASELINE_K)


def run(*, seeds: int, tokens: int) -> dict[str, Any]:
    """Every row and baseline, on every seed."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        truth = GroundTruth(GroundTruthConfig(seed=seed))
        for name, dictionary in baselines(truth, seed=seed):
            found.setdefault(name, []).append(measure_recovery(dictionary, truth).to_json())
        for row in ROWS:
            truth = GroundTruth(GroundTruthConfig(seed=seed, kind=row.truth))
            began = time.process_time()
            dictionary = trained(truth, row.settings, tokens=tokens, seed=seed)
            seconds = time.process_time() - began
            figures = measure_recovery(dictionary, truth).to_json() | {"seconds": seconds}
            found.setdefault(row.name, []).append(figures)
            print(seed, row.name, {key: round(value, 3) for key, value in figures.items()})
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "versions": versions(("torch", "scipy", "pellucid")),
        "seeds": seeds,
        "tokens": tokens,
        "rows": {
            name: {key: interval([each[key] for each in runs]) for key in runs[0]}
            for name, runs in found.items()
        },
    }


def interval(values: list[float]) -> dict[str, float]:
    """The mean and Student's 95% interval; of a single value the value itself."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return {"value": mean, "low": mean, "high": mean}
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values)
    half /= len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=500_000)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    result = run(seeds=options.seeds, tokens=options.tokens)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    from benchmarks.tables import table

    print(table("recovery"))


if __name__ == "__main__":
    main()
