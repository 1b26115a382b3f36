"""The experiment from questions to figures; every stage goes on where it was."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pellucid.attribution.many import Share
from pellucid.core.errors import ConfigError
from pellucid.core.files import write_text
from pellucid.core.manifest import config_hash, software_versions
from pellucid.verification.collecting.collect import collect, load_steps
from pellucid.verification.experiment.contenders import contenders
from pellucid.verification.experiment.measure import measure
from pellucid.verification.experiment.regimes import Regime
from pellucid.verification.experiment.score import parts, score_parts
from pellucid.verification.reading.reader import Reader
from pellucid.verification.steps.step_set import StepSet

SEEDS = 5
STEPS, SCORES = "steps", "scores"
OnProgress = Callable[[str, int, int], None]


def collect_regime(
    regime: Regime,
    readers: Callable[[str], Reader],
    out: Path,
    *,
    share: Share | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, StepSet]:
    """Collect (or find) all steps that a regime needs, by the name of their collection.

    Args:
        regime: what is needed.
        readers: from a source (`plain`, `planted:RULE`) to the reader of that model.
        out: folder of the experiment; steps are shared by all regimes in it.
        share: which parts this process does; a process with a share gets only what is there.
        on_progress: told the stage, and how many chains of how many are done.

    Raises:
        CheckpointError: the folder holds other steps under these names.
        DataError: no chain could be read.
    """
    found = {}
    for each in regime.collections:
        folder = out / STEPS / each.name
        collect(
            readers(each.source),
            each.questions,
            folder,
            source=each.source,
            sampling=each.sampling,
            share=share,
            on_progress=partial(on_progress, each.name),
        )
        found[each.name] = load_steps(folder)
    return found


def experiment(
    regime: Regime,
    steps: Mapping[str, StepSet],
    out: Path,
    *,
    seeds: Sequence[int] = tuple(range(SEEDS)),
    ablations: bool = True,
    bootstraps: int = 1000,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Fit and test every method in every fold with every seed, and measure them.

    Args:
        regime: the folds.
        steps: by collection, as `collect_regime` gives them.
        out: folder of the experiment; figures go to `TASK-REGIME.json` in it.
        seeds: of splits and methods.
        ablations: also the graph without each of its families, and each alone.
        bootstraps: draws of questions for intervals.
        on_progress: told the method, and how many fits of how many are done.

    Returns:
        Figures, differences and ladder (see `measure`), with `seconds_per_step`.

    Raises:
        ConfigError: no seed.
        DataError: a collection has too few wrong steps to be split, or a method cannot learn.
        CheckpointError: the folder holds scores of other steps.
    """
    if not seeds:
        raise ConfigError("there is no seed; give at least one")
    title = f"{regime.task}-{regime.name}"
    made = contenders(ablations=ablations)
    found = list(parts(regime, steps, seeds))
    records = {name: dict(each.record) for name, each in steps.items()}
    score_parts(
        found,
        {name: each.make for name, each in made.items()},
        out / SCORES / title,
        records,
        on_progress,
    )
    rungs = {name: each.rung for name, each in made.items()}
    record = {
        "task": regime.task,
        "regime": regime.name,
        "seeds": list(seeds),
        "collections": {name: _described(each) for name, each in steps.items()},
        "steps_hash": config_hash(records),
        "versions": software_versions(),
        "seconds_per_step": _seconds(steps.values()),
    } | measure(found, rungs, bootstraps=bootstraps)
    write_text(out / f"{title}.json", json.dumps(record, indent=1) + "\n")
    return record


def _described(steps: StepSet) -> dict[str, Any]:
    wrong, weight = steps.wrong, steps.columns["weight"]
    kinds = steps.columns["error"][wrong].tolist()
    return {
        "steps": len(steps),
        "wrong": int(wrong.sum()),
        "error_rate": float(weight[wrong].sum() / weight.sum()),
        "questions": len(set(steps.columns["group"].tolist())),
        "errors": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "seconds_per_step": float(steps.columns["seconds"].mean()),
    }


def _seconds(sets: Any) -> float:
    each = [(float(steps.columns["seconds"].sum()), len(steps)) for steps in sets]
    return sum(seconds for seconds, _ in each) / sum(count for _, count in each)
