"""What the scores say: every method's figures, the ladder, and what the graph adds."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pellucid.core.errors import DataError
from pellucid.verification.experiment.score import Part
from pellucid.verification.methods.method import Rung
from pellucid.verification.metrics.matching import matched_weights
from pellucid.verification.metrics.resamples import Measured, Resamples, TestPart, difference

RUNGS: tuple[Rung, ...] = get_args(Rung)
BASELINES: tuple[Rung, ...] = RUNGS[:-2]
"""Rungs that need no graph; `direct` needs direct effects alone."""
MATCHED_ON = ("tokens", "operators")
"""Length and depth."""
PAIRS = (
    ("graph", "best baseline"),
    ("graph", "crv"),
    ("graph", "everything but the graph"),
    ("graph+confidence", "graph"),
    ("graph+confidence", "best confidence"),
    ("graph+confidence", "best baseline"),
    ("everything", "everything but the graph"),
)
"""Paired differences that are reported."""


def measure(
    found: Sequence[Part], rungs: Mapping[str, Rung], *, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Figures of every method with 95% intervals over questions, as they are and matched.

    Figures are means over seeds and folds; all methods are measured on the same draws of questions.
    The best baseline is chosen on these very steps, which favours it.

    Args:
        found: scored parts.
        rungs: method -> its rung.
        bootstraps: draws of questions.
        seed: of the draws.
    """
    record: dict[str, Any] = {
        "steps": [
            {
                "fold": part.fold,
                "seed": part.seed,
                "train": len(part.train),
                "train_wrong": int(part.train.wrong.sum()),
                "test": len(part.test),
                "test_wrong": int(part.test.wrong.sum()),
            }
            for part in found
        ]
    }
    tests = [TestPart.of(part.test) for part in found]
    record |= _table(found, tests, rungs, bootstraps, seed)
    try:
        matchings = [matched_weights(part.test, MATCHED_ON) for part in found]
    except DataError as error:
        return record | {"matched": {"not_measured": str(error)}}
    tests = [
        TestPart.of(part.test, each.weights) for part, each in zip(found, matchings, strict=True)
    ]
    strata = {"strata": [each.to_json() for each in matchings], "on": list(MATCHED_ON)}
    matched = _table(found, tests, rungs, bootstraps, seed)
    return record | {"matched": matched | strata}


def _table(
    found: Sequence[Part],
    tests: Sequence[TestPart],
    rungs: Mapping[str, Rung],
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    resamples = Resamples(tests, bootstraps=bootstraps, seed=seed)
    measured = {name: resamples.measure([part.scores[name] for part in found]) for name in rungs}
    ladder = {
        rung: max(names, key=lambda name: measured[name].values["auroc"])
        for rung in RUNGS
        if (names := [name for name, own in rungs.items() if own == rung and " " not in name])
    }
    below = [name for name, rung in rungs.items() if rung in BASELINES]
    named = dict(measured)
    if below:
        best = max(below, key=lambda name: measured[name].values["auroc"])
        named |= {"best baseline": measured[best]}
        if "confidence" in ladder:
            named |= {"best confidence": measured[ladder["confidence"]]}
    return {
        "methods": {name: _figures(each, rungs[name]) for name, each in measured.items()},
        "best_baseline": best if below else None,
        "ladder": ladder,
        "differences": {
            f"{first} - {second}": {
                metric: estimate.to_json()
                for metric, estimate in difference(named[first], named[second]).items()
            }
            for first, second in PAIRS
            if first in named and second in named
        },
        "folds": _by_fold(found, tests, rungs),
    }


def _figures(measured: Measured, rung: Rung) -> dict[str, Any]:
    """The keys that `shared` names fixed: auroc, ap, aupr, fpr95, and the interval of auroc."""
    estimates = measured.estimates()
    figures: dict[str, Any] = {name: each.value for name, each in estimates.items()}
    intervals = {name: [each.low, each.high] for name, each in estimates.items()}
    auroc = estimates["auroc"]
    return figures | {"low": auroc.low, "high": auroc.high, "rung": rung, "intervals": intervals}


def _by_fold(
    found: Sequence[Part], tests: Sequence[TestPart], rungs: Mapping[str, Rung]
) -> dict[str, dict[str, float]]:
    """AUROC of every method in each fold, mean over seeds."""
    figures: dict[str, dict[str, float]] = {}
    for fold in dict.fromkeys(part.fold for part in found):
        mine = [n for n, part in enumerate(found) if part.fold == fold]
        own = Resamples([tests[n] for n in mine], bootstraps=0)
        figures[fold] = {
            name: own.measure([found[n].scores[name] for n in mine]).values["auroc"]
            for name in rungs
        }
    return figures
