"""A verifier: from what was read of a step to the probability that the step is wrong.

Suffixes: N steps, C columns.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.groups import check_classes
from pellucid.verification.metrics.resamples import Resamples, TestPart
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.calibrate import CALIBRATORS, Calibrator
from pellucid.verification.verifier.conformal import Basis, Conformal, conformal
from pellucid.verification.verifier.estimators.estimator import Estimator
from pellucid.verification.verifier.examples import (
    Examples,
    chosen,
    domains_of,
    readings,
    training_examples,
)
from pellucid.verification.verifier.fitting import (
    OnProgress,
    Pipeline,
    out_of_fold,
    refitted,
    relative,
)
from pellucid.verification.verifier.normalise import Normalise
from pellucid.verification.verifier.settings import Settings

FREE, GROUP = "free.", "group"
_SIGMAS = 1.96
_DRAWS = 1000


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verifier:
    """Fitted by `Verifier.fit`, read back by `load_verifier`.

    Attributes:
        columns: that it reads, in order.
        settings: how it was fitted.
        normalise: what readings are made relative to; None to take them as they are.
        estimator: from readings to a margin.
        refits: the same fitted on questions drawn anew.
        calibration: from margins to probabilities.
        conformal: the margin from which on a step is flagged, and what that promises.
        training: of every training step: `margin` (from a fit without its question), `wrong`,
            `weight`, `group` (a hash), and its `free.` columns, so that cheaper tests can be set
            against this one.
        record: what it was fitted on and how well it did on questions left out, JSON-able.
    """

    columns: tuple[str, ...]
    settings: Settings
    normalise: Normalise | None
    estimator: Estimator
    refits: tuple[Estimator, ...]
    calibration: Calibrator
    conformal: Conformal
    training: Mapping[str, np.ndarray]
    record: Mapping[str, Any]

    @classmethod
    def fit(
        cls,
        steps: StepSet,
        settings: Settings | None = None,
        *,
        seed: int = 0,
        on_progress: OnProgress = lambda stage, share: None,
        **choices: Any,
    ) -> "Verifier":
        """Learn from labelled steps.

        Calibration and threshold come from margins that each were given by a fit without the step's
        question; `recalibrated` sets them anew on questions that the verifier never saw.

        Args:
            steps: to learn from.
            settings: every choice; the defaults of `Settings` if not given.
            seed: of everything random; the same steps and seed give the same verifier.
            on_progress: told the stage and how much of it is done.
            **choices: fields of `Settings` to be other than in `settings`.

        Raises:
            ConfigError: a setting is unknown or out of range, or a column is a label.
            DataError: no steps, one class only, too few wrong steps, too few questions, an unknown
                column, or a value that is not finite.
        """
        settings = replace(settings or Settings(), **choices)
        names = chosen(steps, settings.columns)
        examples = training_examples(steps, names, within=settings.within)
        examples.folds(settings.folds, seed)  # refuses what cannot be split
        on_progress("fitting", 0.0)
        fitted = Pipeline.fit(examples, settings, seed=seed)
        around: dict[str, Any] = {"seed": seed, "on_progress": on_progress}
        margins, fold = out_of_fold(examples, settings, fitted, **around)
        again = refitted(examples, settings, fitted, **around)
        free = {n: np.asarray(steps.columns[n], dtype=np.float64) for n in steps.named(FREE)}
        return cls(
            columns=names,
            settings=settings,
            normalise=fitted.normalise,
            estimator=fitted.estimator,
            refits=again,
            calibration=CALIBRATORS[settings.calibration].fit(
                margins, examples.wrong, examples.weights
            ),
            conformal=_conformal(margins, examples, settings, "out-of-fold"),
            training={
                "margin": margins,
                "wrong": examples.wrong,
                GROUP: _hashes(steps),
                "weight": np.asarray(steps.columns["weight"], dtype=np.float64),
                **free,
            },
            record=_record(steps, examples, (margins, fold), seed, fitted.estimator),
        )

    @property
    def threshold(self) -> float:
        """The lowest probability at which a step is flagged; 0 where every step is.

        Raises:
            ConfigError: it differs by length; ask `flags`.
        """
        if len(self.conformal.margins) > 1:
            raise ConfigError("this verifier has one threshold a stratum of length; use `flags`")
        return float(self.calibration(self.conformal.margins)[0])

    def margin(self, steps: StepSet) -> Float64[np.ndarray, " N"]:
        """The verifier's score: higher where a step is more likely wrong; labels are not read.

        Args:
            steps: with the columns that it was fitted on.

        Raises:
            DataError: a column is missing, or a value is not finite.
        """
        return self.estimator.margin(self._seen(steps))

    def probability(self, steps: StepSet) -> Float64[np.ndarray, " N"]:
        """The calibrated probability that each step is wrong.

        Args:
            steps: with the columns that it was fitted on.

        Raises:
            DataError: a column is missing, or a value is not finite.
        """
        return self.calibration(self.margin(steps))

    def interval(self, steps: StepSet) -> Float64[np.ndarray, "N 2"]:
        """Lower and upper end of about 95% for the probability.

        The margin plus or minus 1.96 standard deviations over the refits, calibrated: how far the
        probability depends on which questions were trained on, nothing else. The probability
        itself lies within.

        Args:
            steps: with the columns that it was fitted on.

        Raises:
            ConfigError: it was fitted without refits.
            DataError: a column is missing, or a value is not finite.
        """
        if not self.refits:
            raise ConfigError("this verifier has no intervals; fit it with `refits` of 2 or more")
        x = self._seen(steps)
        margin = self.estimator.margin(x)
        spread = np.std([each.margin(x) for each in self.refits], axis=0, ddof=1)
        ends = [self.calibration(margin + side * _SIGMAS * spread) for side in (-1, 1)]
        return np.column_stack(ends)

    def flags(self, steps: StepSet) -> Bool[np.ndarray, " N"]:
        """Which steps are at or above the threshold; see `conformal` for what that promises.

        Args:
            steps: with the columns that it was fitted on.

        Raises:
            DataError: a column is missing, or a value is not finite.
        """
        tokens = np.asarray(steps.columns["tokens"], dtype=np.float64)
        return self.margin(steps) >= self.conformal.at(tokens)

    def contributions(self, steps: StepSet) -> Float64[np.ndarray, "N C"]:
        """What each column added to each step's margin: `margin - estimator.base`, shared out.

        Exact for `logistic`; for trees by their paths, see `Trees.contributions`.

        Args:
            steps: with the columns that it was fitted on.

        Raises:
            DataError: a column is missing, or a value is not finite.
        """
        return self.estimator.contributions(self._seen(steps))

    def recalibrated(self, steps: StepSet, *, recall: float | None = None) -> "Verifier":
        """The same with calibration and threshold from questions that it was not fitted on.

        On such questions the promise of the threshold holds as it stands, not approximately.

        Args:
            steps: labelled; none of its questions may be among the training questions.
            recall: the share promised; the one it was fitted for if not given.

        Raises:
            ConfigError: recall is not between 0 and 1.
            DataError: one class only, a training question among them, a column is missing, or a
                value is not finite.
        """
        if recall is None:
            recall = self.settings.recall
        settings = replace(self.settings, recall=recall)
        check_classes(steps.wrong)
        known = int(np.isin(_hashes(steps), self.training[GROUP]).sum())
        if known:
            raise DataError(
                f"{known} of {len(steps)} steps are of questions that the verifier was fitted on; "
                "recalibrate it on other questions"
            )
        margins = self.margin(steps)
        groups = np.asarray(steps.columns["group"]).astype(str)
        tokens, weights = (
            np.asarray(steps.columns[name], dtype=np.float64) for name in ("tokens", "weight")
        )
        return replace(
            self,
            settings=settings,
            calibration=type(self.calibration).fit(margins, steps.wrong, weights),
            conformal=conformal(
                margins,
                steps.wrong,
                groups,
                tokens,
                recall=settings.recall,
                strata=settings.strata,
                basis="held-out",
            ),
        )

    def adapted(self, steps: StepSet) -> "Verifier":
        """The same for another domain: readings become relative to its own, unlabelled steps.

        Args:
            steps: of the domain; their labels are not read.

        Raises:
            ConfigError: it was fitted without `normalise`.
            DataError: a column is missing, or a value is not finite.
        """
        if self.normalise is None:
            raise ConfigError(
                "this verifier takes readings as they are; fit it with normalise right or length"
            )
        examples = Examples.unlabelled(steps, readings(steps, self.columns), self.settings.within)
        return replace(self, normalise=self.normalise.adapted(examples))

    def save(self, folder: str | Path) -> Path:
        """Write it as safetensors and JSON; `load_verifier` gives the same to the last bit.

        Args:
            folder: to write, replaced if there.

        Raises:
            StorageError: the disk refuses.
        """
        from pellucid.verification.verifier.saved import save_verifier

        return save_verifier(folder, self)

    def _seen(self, steps: StepSet) -> Float64[np.ndarray, "N C"]:
        if not len(steps):
            return np.zeros((0, len(self.columns)))
        tokens = np.asarray(steps.columns["tokens"], dtype=np.float64)
        domains = domains_of(steps, self.settings.within)
        return relative(self.normalise, readings(steps, self.columns), tokens, domains)


def _hashes(steps: StepSet) -> Int64[np.ndarray, " N"]:
    """A stable number for each step's question."""
    names, member = np.unique(np.asarray(steps.columns["group"]).astype(str), return_inverse=True)
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.tolist()]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)[member.reshape(-1)]


def _conformal(
    margins: np.ndarray, examples: Examples, settings: Settings, basis: Basis
) -> Conformal:
    return conformal(
        margins,
        examples.wrong,
        examples.groups,
        examples.tokens,
        recall=settings.recall,
        strata=settings.strata,
        basis=basis,
    )


def _record(
    steps: StepSet,
    examples: Examples,
    judged: tuple[np.ndarray, np.ndarray],
    seed: int,
    estimator: Estimator,
) -> dict[str, Any]:
    """What a verifier was fitted on, and its order of steps from questions left out."""
    margins, fold = judged
    rows = [np.flatnonzero(fold == number) for number in np.unique(fold)]
    parts = [TestPart(examples.wrong[r], examples.groups[r], examples.weights[r]) for r in rows]
    measured = Resamples(parts, bootstraps=_DRAWS, seed=seed).measure([margins[r] for r in rows])
    models = steps.record.get("models", steps.record.get("model"))
    return {
        "models": [models] if isinstance(models, str) else list(models or []),
        "dictionaries": steps.record.get("dictionaries"),
        "readings": dict(steps.record),
        "steps": len(steps),
        "wrong": int(examples.wrong.sum()),
        "questions": len(np.unique(examples.groups)),
        "sources": sorted(set(map(str, steps.columns["source"]))),
        "languages": sorted(set(map(str, steps.columns["language"]))),
        "seed": seed,
        "estimator": estimator.settings(),
        "out_of_fold": {name: each.to_json() for name, each in measured.estimates().items()},
    }
