"""How good a verifier is on questions it was not fitted on, calibration and threshold included."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.proportions import clopper_pearson
from pellucid.probes.metrics import BOOTSTRAPS
from pellucid.verification.metrics.calibration import CALIBRATION, reliability
from pellucid.verification.metrics.resamples import Resamples, TestPart
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

    def by_fold(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the steps, cut as the folds are.

        Args:
            values: one a step.
        """
        return [values[self.fold == number] for number in np.unique(self.fold)]

    def resamples(
        self,
        weights: Float64[np.ndarray, " N"] | None = None,
        *,
        bootstraps: int = BOOTSTRAPS,
        seed: int = 0,
    ) -> Resamples:
        """Draws on which scores, cut `by_fold`, are measured: in each fold, then averaged.

        Args:
            weights: instead of the steps' own, such as `matched_weights` gives.
            bootstraps: how many draws of the questions.
            seed: of the draws.

        Raises:
            DataError: a fold has one class only under these weights.
        """
        weights = self.part.weights if weights is None else weights
        labels = (self.part.wrong, self.part.groups, weights)
        parts = [TestPart(*each) for each in zip(*map(self.by_fold, labels), strict=True)]
        return Resamples(parts, bootstraps=bootstraps, seed=seed)

    def trust(self, *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> dict[str, Any]:
        """How far probabilities and thresholds held, as a JSON-able record.

        `ece` and `brier` with intervals and the `reliability` curve, of all steps together; under
        `threshold` the share of wrong steps that were flagged, the share of faulty questions whose
        wrong steps all were (what was promised), and the share of right steps that were.

        Args:
            bootstraps: how many draws of the questions.
            seed: of the draws.
        """
        wrong, weights = self.part.wrong, self.part.weights
        drawn = Resamples([self.part], bootstraps=bootstraps, seed=seed)
        metrics = {name: CALIBRATION[name] for name in CALIBRATION}
        measured = drawn.measure([self.probability], metrics).estimates()
        names, member = np.unique(self.part.groups[wrong], return_inverse=True)
        missed = np.bincount(member.reshape(-1), ~self.flags[wrong], minlength=len(names)) > 0
        right = weights * ~wrong
        curve = reliability(self.probability, wrong, weights)
        return {
            **{name: each.to_json() for name, each in measured.items()},
            "reliability": [each.to_json() for each in curve],
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
