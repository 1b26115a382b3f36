"""Every method's scores on every test part, kept as they come, so that a killed run goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.core.claims import claim_folder
from pellucid.core.errors import CheckpointError, DataError
from pellucid.core.files import atomic_file
from pellucid.core.manifest import config_hash
from pellucid.probes.groups import split
from pellucid.verification.experiment.regimes import Fold, Regime
from pellucid.verification.methods.method import Method
from pellucid.verification.steps.step_set import StepSet, concatenate

TEST_SHARE = 0.3
TRAIN_SHARE = 0.8
"""Share of training questions that a seed draws where the test steps are fixed."""

Make = Callable[[], Method]
OnScore = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One training set and the steps that it is tested on.

    Attributes:
        fold: what is tested.
        seed: of the split and of every method.
        train, test: the steps.
        scores: by method, one a test step.
    """

    fold: str
    seed: int
    train: StepSet
    test: StepSet
    scores: dict[str, np.ndarray]


def parts(regime: Regime, steps: Mapping[str, StepSet], seeds: Sequence[int]) -> Iterator[Part]:
    """Every fold with every seed; no question is in training and in test.

    Args:
        regime: whose folds.
        steps: by collection.
        seeds: at least one.

    Raises:
        DataError: a collection has too few wrong steps to be split.
    """
    for fold in regime.folds:
        for seed in seeds:
            train, test = _split(fold, steps, seed)
            yield Part(fold=fold.name, seed=seed, train=train, test=test, scores={})


def _split(fold: Fold, steps: Mapping[str, StepSet], seed: int) -> tuple[StepSet, StepSet]:
    test = concatenate([steps[name] for name in fold.test])
    if fold.train == fold.test:
        rows = split(test.wrong, list(test.columns["group"]), test_share=TEST_SHARE, seed=seed)
        return test.select(rows[0]), test.select(rows[1])
    train = concatenate([steps[name] for name in fold.train])
    groups = np.unique(train.columns["group"])
    rng = np.random.default_rng(seed)
    drawn = rng.choice(groups, max(1, round(TRAIN_SHARE * len(groups))), replace=False)
    known = set(drawn.tolist()) - set(test.columns["group"].tolist())
    return train.select(np.array([group in known for group in train.columns["group"]])), test


def score_parts(
    found: Sequence[Part],
    methods: Mapping[str, Make],
    folder: Path,
    record: Mapping[str, object],
    on_score: OnScore = lambda name, done, total: None,
) -> None:
    """Fill in every part's scores, reading those that an earlier run left.

    Args:
        found: the parts; their `scores` are filled.
        methods: name -> a new method.
        folder: where scores are kept.
        record: what decides the steps.
        on_score: told the method, how many fits are done, and of how many.

    Raises:
        CheckpointError: the folder holds scores of other steps.
        DataError: a method cannot learn from the steps.
    """
    claim_folder(folder, {"steps": config_hash(dict(record))}, "scores")
    done, total = 0, len(found) * len(methods)
    for part in found:
        for name, make in methods.items():
            path = folder / part.fold / f"{part.seed}" / f"{name}.npy"
            part.scores[name] = _kept(path, len(part.test)) if path.exists() else _fit(make, part)
            if not path.exists():
                with atomic_file(path) as temporary, temporary.open("wb") as file:
                    np.save(file, part.scores[name], allow_pickle=False)
            done += 1
            on_score(name, done, total)


def _fit(make: Make, part: Part) -> np.ndarray:
    method = make()
    method.fit(part.train, seed=part.seed)
    scores = np.asarray(method.score(part.test), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise DataError(
            f"{method.name} gave scores that are not finite on {part.fold}; collect the steps again"
        )
    return scores


def _kept(path: Path, count: int) -> np.ndarray:
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it") from error
    if scores.shape != (count,):
        raise CheckpointError(f"{path} has {len(scores)} scores for {count} steps; delete it")
    return np.asarray(scores)
