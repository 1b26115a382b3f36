"""Seconds a step and AUROC by graph budget, beside the published recipe run by the same engine.

    python -m benchmarks.verification_cost STEPS

The published recipe (Zhao et al. 2025) traces every step anew: a forward pass over the chain up to
the step, a graph of up to 4096 features that explains the tokens after the step, its features, and
gradient boosting. Ours runs a chain once and traces the step's answer with few features. Both read
the same steps: of chains with a wrong step, and of as many right chains. Seconds are processor
seconds of one thread, forward passes included; AUROC is of steps left out, by question.

STEPS is the `steps` folder that `pellucid verify experiment --out` keeps. Writes
`benchmarks/results/verification_cost.json`.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.collecting.collect import as_step_set, load_kept
from pellucid.verification.experiment.contenders import PAPER
from pellucid.verification.metrics.resamples import Measured, Resamples, difference
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.reading.targets import TargetName
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.steps.table import chain_ids, labelled_places
from pellucid.verification.verifier import Settings, cross_validate

RESULT = Path(__file__).parent / "results" / "verification_cost.json"
PUBLISHED = 4096
BUDGETS = (16, 64, 128, 512)
CHAINS = 110
"""Chains with a wrong step, and as many without."""
RIGHT_SHARE = 0.3
OURS = {
    "graph": Settings(columns=("graph.answer.",), estimator="histogram", refits=0),
    "graph and confidence": Settings(
        columns=("graph.answer.", "free."), estimator="histogram", refits=0
    ),
}
THEIRS = {"published features": Settings(columns=PAPER, estimator="boosting", refits=0)}
FREE = {"confidence": Settings(columns=("free.",), estimator="histogram", refits=0)}

Step = tuple[dict[str, Any], Any]
Picked = list[tuple[list[int], list[Step]]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=Path)
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--chains", type=int, default=CHAINS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    picked = pick(model, load_kept(given.steps / f"{given.task}-in"), given.chains)
    rows: list[dict[str, Any]] = []
    ways: list[tuple[str, TargetName, int, bool, dict[str, Settings]]] = [
        ("one pass a chain", "answer", BUDGETS[0], False, FREE | OURS),
        *(("one pass a chain", "answer", budget, False, OURS) for budget in BUDGETS[1:]),
        ("one pass a chain", "after", 128, False, THEIRS),
        ("one pass a step", "after", PUBLISHED, True, THEIRS),
    ]
    measured: dict[str, Measured] = {}
    draws: Resamples | None = None
    for way, target, budget, anew, verifiers in ways:
        read = ReaderSettings(targets=(target,), max_features=budget, tokens=False)
        steps, seconds = collected(Reader(model, dictionaries, read), picked, anew=anew)
        for name, settings in verifiers.items():
            crossed = cross_validate(steps, settings, seed=0)
            draws = draws or crossed.resamples(seed=0)  # steps and folds are the same every time
            found = draws.measure(crossed.by_fold(crossed.margin))
            measured[f"{name}/{target}/{budget}/{way}"] = found
            row = {"way": way, "target": target, "max_features": budget, "verifier": name}
            row |= {"seconds_per_step": seconds, "auroc": found.estimates()["auroc"].to_json()}
            rows.append(row)
            print(json.dumps(row), flush=True)
    published = measured[f"published features/after/{PUBLISHED}/one pass a step"]
    for row, found in zip(rows, measured.values(), strict=True):
        row["times_cheaper"] = rows[-1]["seconds_per_step"] / row["seconds_per_step"]
        row["beyond_published"] = difference(found, published)["auroc"].to_json()
    record = {
        "task": given.task,
        "steps": len(steps),
        "wrong": int(steps.wrong.sum()),
        "rows": rows,
        "hardware": hardware(),
        "versions": versions(["pellucid", "torch", "transformers", "scikit-learn"]),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def pick(model: LanguageModel, chains: Sequence[KeptChain], count: int) -> Picked:
    """Chains up to their first error, faulty and right ones, with the steps that are read."""
    rng, taken = Random(0), {True: 0, False: 0}
    found: Picked = []
    for number, kept in enumerate(chains):
        if kept.unread is not None:
            continue
        strict = kept.until_error()
        steps = list(labelled_places(model, strict, number))
        faulty = any(labels["wrong"] for labels, _ in steps)
        if taken[faulty] == count:
            continue
        taken[faulty] += 1
        chosen = [s for s in steps if s[0]["wrong"] or rng.random() < RIGHT_SHARE]
        for labels, _ in chosen:
            labels["weight"] = 1.0 if labels["wrong"] else 1.0 / RIGHT_SHARE
        if chosen:
            found.append((chain_ids(model, strict), chosen))
    return found


def collected(reader: Reader, picked: Picked, *, anew: bool) -> tuple[StepSet, float]:
    """The steps, and processor seconds a step; `anew` runs and traces each from the start."""
    started, rows = time.process_time(), []
    for ids, steps in picked:
        chain = None if anew else reader.chain(ids)
        for labels, place in steps:
            own = reader.chain(ids[: place.stop]) if chain is None else chain
            rows.append((labels, own.step(place)))
    seconds = time.process_time() - started
    return as_step_set(rows), seconds / len(rows)


if __name__ == "__main__":
    main()
