"""Watching chains as they are written: errors caught, false alarms, and what it costs.

    python -m benchmarks.watching collect FOLDER     steps to learn from (minutes)
    python -m benchmarks.watching choose FOLDER      AUROC by columns, one copy left out
    python -m benchmarks.watching run FOLDER         fit, watch 200 chains, write the result

Two sets of 100 chains: questions one operator deeper than trained, written by the plain specimen,
and chains of a planted copy whose rule the verifier has not seen. Beside graphs in the band alone:
graphs for every step, and a verifier of free scores alone, with the same promise.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import hardware, versions
from pellucid import api
from pellucid.core.errors import DataError
from pellucid.core.proportions import wilson
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.chains.questions import draw_questions
from pellucid.verification.chains.steps import Chain, read_chain
from pellucid.verification.collecting.collect import Questions, Sampling, collect, load_steps
from pellucid.verification.metrics.resamples import Resamples, TestPart
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.steps.step_set import StepSet, concatenate
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier
from pellucid.verification.watching.streaming import prompt_ids, stream
from pellucid.verification.watching.watch import WatchedStep, Watcher, WatchSettings

RESULT = Path(__file__).parent / "results" / "watching.json"
CHOICE = RESULT.with_name("watching_choice.json")
LEFT_OUT = "dropped-minus"
COPIES = ("dropped-carry", "swapped-minus", "product-sign")
READ = ReaderSettings(targets=("answer",), max_features=128, tokens=False)
TRAINED_ON = {
    "in": ("specimen", Questions(operators=(3, 5), count=256, temperature=0.3, seed=1)),
    "deeper": ("specimen", Questions(operators=(6, 6), count=96, temperature=0.0, seed=2)),
    **{
        name: (
            f"specimen:planted-{name}",
            Questions(operators=(3, 5), count=96, temperature=0.0, seed=3 + n),
        )
        for n, name in enumerate(COPIES)
    },
}
WATCHED = {
    "deeper": ("specimen", (6, 6), 101),
    "planted": (f"specimen:planted-{LEFT_OUT}", (3, 5), 102),
}
FREE, WHOLE = "free scores alone", "a graph for every step"
READINGS = ("free.", "graph.answer.error.", "error_norm.")
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    FREE: (("free.",), {"banded": False}),
    WHOLE: (READINGS, {"banded": False}),
    "free scores, graphs in the band": (READINGS, {}),
}
CHAINS = 100
RECALL = 0.9
ESTIMATOR = "logistic"
"""It and `READINGS` were chosen by leaving out one of `COPIES` at a time (`choose`)."""
BOOTSTRAPS = 1000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("collect", "choose", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chains", type=int, default=CHAINS)
    given = parser.parse_args(arguments)
    if given.what == "collect":
        gather(given.folder)
    elif given.what == "choose":
        CHOICE.write_text(json.dumps(compared(given.folder), indent=1) + "\n")
    else:
        RESULT.write_text(json.dumps(measured(given.folder, given.chains), indent=1) + "\n")


def gather(folder: Path) -> None:
    """Steps of every training source; parts that are there already are left."""
    for name, (model, questions) in TRAINED_ON.items():
        reader = Reader(api.load_model(model), api.load_dictionaries("specimen"), READ)
        started = time.process_time()
        sampling = Sampling(right_share=0.4)
        collect(reader, questions, folder / name, source=name, sampling=sampling)
        steps = load_steps(folder / name)
        seconds = time.process_time() - started
        print(f"{name}: {len(steps)} steps, {steps.wrong.sum()} wrong, {seconds:.0f} s", flush=True)


def training_steps(folder: Path, watched: set[str]) -> StepSet:
    """The steps of all sources, without those of questions that are watched."""
    sets = [load_steps(folder / name) for name in TRAINED_ON]
    models = sorted({str(each.record["model"]) for each in sets})
    steps = concatenate(sets)
    steps = steps.select(~np.isin(steps.columns["group"].astype(str), sorted(watched)))
    return replace(steps, record={**steps.record, "models": models})


def compared(folder: Path) -> dict[str, Any]:
    """AUROC on each copy of verifiers that learned from all other sources; none is watched."""
    steps = concatenate([load_steps(folder / name) for name in TRAINED_ON])
    source = steps.columns["source"].astype(str)
    found: dict[str, Any] = {}
    for columns in (("free.",), ("graph.",), ("free.", "graph."), READINGS):
        row = {}
        for copy in COPIES:
            settings = Settings(columns=columns, estimator=ESTIMATOR, refits=0, folds=3)
            verifier = Verifier.fit(steps.select(source != copy), settings)
            test = steps.select(source == copy)
            part = Resamples([TestPart.of(test)], bootstraps=BOOTSTRAPS, seed=0)
            row[copy] = part.measure([verifier.margin(test)]).estimates()["auroc"].to_json()
        found[", ".join(columns)] = row
        print(columns, {name: round(each["value"], 3) for name, each in row.items()}, flush=True)
    return {"auroc": found, "hardware": hardware()}


def measured(folder: Path, count: int) -> dict[str, Any]:
    """Every way of watching on every set."""
    questions = {
        name: draw_questions("arithmetic", operators, count, seed)
        for name, (_, operators, seed) in WATCHED.items()
    }
    asked = {" ".join(question) for each in questions.values() for question in each}
    steps = training_steps(folder, asked)
    found: dict[str, Any] = {name: {} for name in WATCHED}
    fits: dict[tuple[str, ...], Verifier] = {}
    fitted: dict[str, Any] = {}
    kept: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for way, (columns, options) in WAYS.items():
        if columns not in fits:
            settings = Settings(columns=columns, estimator=ESTIMATOR, refits=5, recall=RECALL)
            fits[columns] = Verifier.fit(steps, settings)
        verifier = fits[columns]
        fitted[way] = {
            "out_of_fold": verifier.record["out_of_fold"]["auroc"],
            "threshold": verifier.threshold,
            "promise": verifier.conformal.to_json(),
        }
        for name, (model, _, _) in WATCHED.items():
            loaded = api.load_model(model)
            watcher = Watcher(
                loaded,
                api.load_dictionaries("specimen"),
                verifier,
                WatchSettings(features=0, **options),
            )
            row, rows = watched_set(watcher, questions[name])
            kept[name, way] = rows
            band = None if watcher.band is None else watcher.band.to_json()
            found[name][way] = row | {"band": band}
            print(name, way, json.dumps(row), flush=True)
    for name, each in found.items():
        each[FREE]["at_the_alarms_of_graphs"] = at_equal_alarms(
            kept[name, FREE], each[WHOLE]["right_steps_flagged"]["value"]
        )
    return {
        "sets": found,
        "verifiers": fitted,
        "estimator": ESTIMATOR,
        "training": {"steps": len(steps), "wrong": int(steps.wrong.sum()), "recall": RECALL},
        "left_out": LEFT_OUT,
        "chains": count,
        "reading": asdict(READ),
        "hardware": hardware(),
        "versions": versions(["pellucid", "torch", "transformers", "numpy"]),
    }


def watched_set(
    watcher: Watcher, questions: Sequence[Sequence[str]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of one way of watching over one set of chains, and what each chain counts for."""
    rows, seconds, writing, unread = [], [], [], 0
    graphed = 0
    for question in questions:
        prompt = " ".join((*question, "="))
        started = time.process_time()
        ids = prompt_ids(watcher.model, prompt)
        new = [token.id for token in stream(watcher.model, ids)]
        wrote = time.process_time() - started
        steps = list(watcher.watch(prompt))
        chain = chain_of(watcher, [*ids, *new])
        seen = [step.segment.text for step in steps]
        if chain is None or seen != [" ".join(step.expression) for step in chain.steps]:
            unread += 1
            continue
        rows.append(chain_row(chain, steps))
        seconds += [step.seconds for step in steps]
        graphed += sum(step.graphed for step in steps)
        writing.append(wrote / len(steps))
    costs = {
        "steps": len(seconds),
        "unread": unread,
        "graphed_share": graphed / max(len(seconds), 1),
        "seconds_a_step": float(np.mean(seconds)),
        "writing_seconds_a_step": float(np.mean(writing)),
    }
    return figures(rows) | costs, rows


def at_equal_alarms(rows: Sequence[dict[str, Any]], share: float) -> dict[str, Any]:
    """First errors that a verifier catches when it flags this share of right steps.

    The threshold is chosen on the very chains, which favours this verifier.
    """
    right = np.sort([p for row in rows for p in row["before"]])[::-1]
    wrong = np.array([row["first"] for row in rows if row["wrong"]])
    allowed = int(share * len(right) + 1e-9)
    threshold = right[allowed] if allowed < len(right) else -np.inf
    caught = int((wrong > threshold).sum())
    return wilson(caught, len(wrong)).to_json()


def chain_of(watcher: Watcher, ids: Sequence[int]) -> Chain | None:
    """The chain with its exact labels; None if it cannot be read."""
    words = [word.strip() for word in watcher.model.token_texts(list(ids))[1:]]
    try:
        return read_chain(ARITHMETIC, words)
    except DataError:
        return None


def chain_row(chain: Chain, steps: Sequence[WatchedStep]) -> dict[str, Any]:
    """What a chain counts for: the first error and the alarms before it."""
    first = next((s.number for s in chain.steps if not s.local), None)
    before = steps if first is None else steps[:first]
    return {
        "wrong": int(first is not None),
        "caught": int(first is not None and steps[first].flagged),
        "first": 0.0 if first is None else steps[first].probability,
        "before": [step.probability for step in before],
        "right_steps": len(before),
        "alarms": sum(step.flagged for step in before),
        "alarmed": int(first is None and any(step.flagged for step in steps)),
    }


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares with intervals over chains."""
    wrong = [row for row in rows if row["wrong"]]
    right = [row for row in rows if not row["wrong"]]
    alarms = np.array([row["alarms"] for row in right], dtype=float)
    steps = sum(row["right_steps"] for row in rows)
    draws = np.random.default_rng(0).integers(len(alarms), size=(BOOTSTRAPS, len(alarms)))
    low, high = np.quantile(alarms[draws].mean(1), (0.025, 0.975)).tolist()
    return {
        "chains": len(rows),
        "auroc": auroc(rows),
        "caught": wilson(sum(row["caught"] for row in wrong), len(wrong)).to_json(),
        "alarms_a_right_chain": {"value": float(alarms.mean()), "low": low, "high": high},
        "right_chains_alarmed": wilson(sum(r["alarmed"] for r in right), len(right)).to_json(),
        "right_steps_flagged": wilson(sum(row["alarms"] for row in rows), steps).to_json(),
    }


def auroc(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How well first errors are told from the right steps before them; chains are drawn anew."""
    rng, values = np.random.default_rng(0), []
    for draw in range(BOOTSTRAPS + 1):
        taken = rng.integers(len(rows), size=len(rows)) if draw else range(len(rows))
        first = np.array([rows[n]["first"] for n in taken if rows[n]["wrong"]])
        right = np.sort([p for n in taken for p in rows[n]["before"]])
        below = np.searchsorted(right, first) + np.searchsorted(right, first, side="right")
        values.append(float(below.mean() / (2 * len(right))))
    low, high = np.quantile(values[1:], (0.025, 0.975)).tolist()
    return {"value": values[0], "low": low, "high": high}


if __name__ == "__main__":
    main()
