"""How good a verifier is on questions it was not fitted on, calibration and threshold included."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.proportions import clopper_pearson
from pellucid.verification.metrics.calibration import CALIBRATION, reliability
from pellucid.verification.metrics.resamples import Measured, Resamples, TestPart
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.examples import chosen, training_examples
from pellucid.verification.verifier.fitting import OnProgress
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossed:
    """Every step judged by a verifier fitted, calibrated and given its threshold without it.

    Attributes:
        margin: the score.
        probability: calibrated.
        flags: whether it is at or above the threshold.
        fold: which verifier judged it; margins compare only within one.
        part: the labels.
    """

    margin: Float64[np.ndarray, " N"]
    probability: Float64[np.ndarray, " N"]
    flags: Bool[np.ndarray, " N"]
    fold: Int64[np.ndarray, " N"]
    part: TestPart

    def separation(self, *, bootstraps: int = 1000, seed: int = 0) -> Measured:
        """Metrics of order: of each fold, averaged.

        Args:
            bootstraps: how many draws of the questions.
            seed: of the draws.
        """
        rows = [np.flatnonzero(self.fold == n) for n in np.unique(self.fold)]
        drawn = Resamples([_rows(self.part, r) for r in rows], bootstraps=bootstraps, seed=seed)
        return drawn.measure([self.margin[r] for r in rows])

    def calibration(self, *, bootstraps: int = 1000, seed: int = 0) -> Measured:
        """Metrics of the probabilities of all steps together.

        Args:
            bootstraps: how many draws of the questions.
            seed: of the draws.
        """
        metrics = {name: CALIBRATION[name] for name in CALIBRATION}
        drawn = Resamples([self.part], bootstraps=bootstraps, seed=seed)
        return drawn.measure([self.probability], metrics)

    def to_json(self, *, seed: int = 0) -> dict[str, Any]:
        """Every figure with its interval, as a JSON-able record.

        Args:
            seed: of the draws.
        """
        wrong, weights = self.part.wrong, self.part.weights
        order = {n: e.to_json() for n, e in self.separation(seed=seed).estimates().items()}
        trust = {n: e.to_json() for n, e in self.calibration(seed=seed).estimates().items()}
        names, member = np.unique(self.part.groups[wrong], return_inverse=True)
        missed = np.bincount(member.reshape(-1), ~self.flags[wrong], minlength=len(names)) > 0
        right = weights * ~wrong
        return {
            **order,
            **trust,
            "reliability": [
                each.to_json() for each in reliability(self.probability, wrong, weights)
            ],
            "threshold": {
                "recall": float(self.flags[wrong].mean()),
                "questions": clopper_pearson(int((~missed).sum()), len(missed)).to_json(),
                "false_alarms": float(right @ self.flags / right.sum()),
            },
        }


def cross_validate(
    steps: StepSet,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, share: None,
) -> Crossed:
    """Fit a verifier without each part of the questions in turn, and judge that part.

    Args:
        steps: labelled.
        settings: how to fit; parts are `settings.folds`, and each verifier again makes as many for
            its calibration.
        seed: of everything random.
        on_progress: told the stage and how much of it is done.

    Raises:
        ConfigError: as `Verifier.fit`.
        DataError: as `Verifier.fit`.
    """
    settings = replace(settings or Settings(), refits=0)
    names = chosen(steps, settings.columns)
    parts = training_examples(steps, names, within=settings.within).folds(settings.folds, seed)
    margin, probability = np.empty(len(steps)), np.empty(len(steps))
    flags, fold = np.zeros(len(steps), dtype=bool), np.empty(len(steps), dtype=np.int64)
    for number, (train, test) in enumerate(parts):
        on_progress("cross-validating", number / len(parts))
        verifier = Verifier.fit(steps.select(train), settings, seed=seed)
        held = steps.select(test)
        margin[test], probability[test] = verifier.margin(held), verifier.probability(held)
        flags[test], fold[test] = verifier.flags(held), number
    return Crossed(
        margin=margin, probability=probability, flags=flags, fold=fold, part=TestPart.of(steps)
    )


def _rows(part: TestPart, rows: Int64[np.ndarray, " n"]) -> TestPart:
    return TestPart(part.wrong[rows], part.groups[rows], part.weights[rows])
