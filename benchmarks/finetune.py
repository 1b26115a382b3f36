"""What does the end-to-end pass gain, what does it cost, and is it the KL term or more training?

Fine-tunes the packaged transcoders on the specimen's text with the default settings, as the control
without the KL term but the same in all else, and with settings that care less for each layer;
compares all with the packaged ones on the same held-out documents, in tasks, and in graphs of
held-out prompts. From the root:

    python -m benchmarks.finetune --work /tmp/finetune

trains what is not trained yet (a run that was stopped goes on), measures, and writes
`results/finetune.json`; `--train-only --arms kl` only trains.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.attribution.checks.causal import causal_check
from pellucid.attribution.trace import Trace
from pellucid.core.files import write_text
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.replacement.model import ReplacementModel
from pellucid.specimen.tasks import TASK_NAMES, evaluation_items, task_accuracy
from pellucid.training.finetune import FinetuneResult, finetune

RESULTS = Path(__file__).parent / "results" / "finetune.json"
ARMS: dict[str, dict[str, Any]] = {
    "kl": {"tokens": 1_000_000},
    "local": {"tokens": 1_000_000, "objective": "local"},
    "looser": {
        "tokens": 800_000,
        "local_weight": 0.03,
        "encoder_rate": 0.5,
        "learning_rate": 6e-4,
    },
}
SEED = 1
BOOTSTRAPS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained sets")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--held-out", type=int, default=50_000, help="tokens to compare on")
    parser.add_argument("--items", type=int, default=128, help="items a task")
    parser.add_argument("--prompts", type=int, default=2, help="traced prompts a task")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    model = api.load_model("specimen")
    arms: list[str] = arguments.arms
    results = {arm: train_arm(model, arm, arguments) for arm in arms}
    for arm, result in results.items():
        closed = result.comparison.ce_gap_closed
        print(f"{arm}: {closed.value:.1%} [{closed.low:.1%}, {closed.high:.1%}] of the gap closed")
    if arguments.train_only:
        return
    sets = {"packaged": api.load_dictionaries("specimen")}
    sets |= {arm: api.load_dictionaries(result.out) for arm, result in results.items()}
    measured = {name: measure_set(model, name, each, arguments) for name, each in sets.items()}
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(["pellucid", "torch", "transformers"]),
        "settings": {arm: settings(sets[arm]) for arm in arms},
        "arms": {arm: result.to_json() for arm, result in results.items()},
        "tasks": {"original": task_accuracy(model.logits, count=arguments.items)}
        | {name: each["tasks"] for name, each in measured.items()},
        "graphs": {
            name: {key: summary(values) for key, values in each["graphs"].items()}
            for name, each in measured.items()
        },
    }
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


def measure_set(
    model: LanguageModel, name: str, dictionaries: DictionarySet, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Tasks and graphs of a set, kept in the working folder."""
    file = arguments.work / f"{name}.json"
    if not file.exists():
        logits = ReplacementModel(model, dictionaries).logits
        record = {
            "tasks": task_accuracy(logits, count=arguments.items),
            "graphs": graphs(model, dictionaries, arguments.prompts),
        }
        write_text(file, json.dumps(record, indent=2) + "\n")
    return json.loads(file.read_text(encoding="utf-8"))


def settings(dictionaries: DictionarySet) -> dict[str, Any]:
    """How a set was fine-tuned."""
    assert dictionaries.manifest is not None
    config = dictionaries.manifest.config["training"]
    return {name: value for name, value in config.items() if name != "trained_before"}


def train_arm(model: LanguageModel, arm: str, arguments: argparse.Namespace) -> FinetuneResult:
    """The fine-tuned set of an arm; a run that was stopped goes on, a finished one is read."""
    out = arguments.work / arm
    return finetune(
        model,
        api.load_dictionaries("specimen"),
        "specimen",
        out,
        held_out_tokens=arguments.held_out,
        resume=out.exists(),
        **ARMS[arm],
    )


def graphs(
    model: LanguageModel, dictionaries: DictionarySet, prompts: int
) -> dict[str, list[float]]:
    """Scores and causal agreement of graphs of held-out prompts, a value a prompt."""
    figures: dict[str, list[float]] = {}
    for task in TASK_NAMES:
        for item in evaluation_items(task, SEED, prompts):
            whole = Trace(model, item.ids[1 : item.spans[-1][0]], dictionaries)
            graph = whole.graph()
            check: dict[str, Any] = causal_check(whole.linear, graph) or {}
            values = dict(graph.scores) | {
                f"spearman, {key}": check.get(f"spearman_{key}") for key in ("real", "random")
            }
            for key, value in values.items():
                if isinstance(value, int | float):
                    figures.setdefault(key, []).append(float(value))
    return figures


def summary(values: list[float]) -> dict[str, float]:
    """Mean over prompts with its 95% bootstrap interval."""
    data, rng = np.array(values), np.random.default_rng(SEED)
    means = data[rng.integers(len(data), size=(BOOTSTRAPS, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(data.mean()), "low": float(low), "high": float(high), "n": len(data)}


if __name__ == "__main__":
    main()
