"""One fit of the pipeline, and the fits around it that calibrate it and say how sure it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.verification.verifier.estimators import ESTIMATORS
from pellucid.verification.verifier.estimators.estimator import Estimator
from pellucid.verification.verifier.examples import Examples
from pellucid.verification.verifier.normalise import Normalise
from pellucid.verification.verifier.settings import Settings

OnProgress = Callable[[str, float], None]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """Readings made relative, then scored.

    Attributes:
        normalise: None where readings are taken as they are.
        estimator: fitted on what it gives.
    """

    normalise: Normalise | None
    estimator: Estimator

    @classmethod
    def fit(
        cls,
        examples: Examples,
        settings: Settings,
        *,
        seed: int,
        like: "Pipeline | None" = None,
    ) -> "Pipeline":
        """Fit both on the same steps.

        Args:
            examples: training steps.
            settings: which estimator, and relative to what.
            seed: of everything random.
            like: a fit of the same settings whose choices are taken over.
        """
        normalise = None
        if settings.normalise != "none":
            normalise = Normalise.fit(examples, by_length=settings.normalise == "length")
        seen = examples.with_x(relative(normalise, examples.x, examples.tokens, examples.domains))
        kind = ESTIMATORS[settings.estimator]
        chosen = None if like is None else like.estimator
        return cls(normalise=normalise, estimator=kind.fit(seen, seed=seed, like=chosen))

    def margin(self, examples: Examples) -> Float64[np.ndarray, " N"]:
        """Log-odds that each step is wrong, before calibration.

        Args:
            examples: any steps; their labels are not read.
        """
        x = relative(self.normalise, examples.x, examples.tokens, examples.domains)
        return self.estimator.margin(x)


def relative(
    normalise: Normalise | None,
    x: Float64[np.ndarray, "N C"],
    tokens: Float64[np.ndarray, " N"],
    domains: np.ndarray,
) -> Float64[np.ndarray, "N C"]:
    """Readings as an estimator sees them.

    Args:
        normalise: None to take them as they are.
        x: the readings.
        tokens: how long each step is.
        domains: of each step.
    """
    return x if normalise is None else normalise(x, tokens, domains)


def out_of_fold(
    examples: Examples,
    settings: Settings,
    whole: Pipeline,
    *,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Float64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The margin of every step, from a fit on questions other than its own, and which fit it was.

    Args:
        examples: training steps.
        settings: how to fit, and on how many parts.
        whole: the fit on all of them, whose choices are taken over; the margins would have another
            scale than its own otherwise, and a calibration fitted on them would not serve it.
        seed: of the parts and fits.
        on_progress: told the stage and how much of it is done.

    Raises:
        DataError: the questions cannot be split with both classes on both sides.
    """
    margins, fold = np.empty(len(examples)), np.empty(len(examples), dtype=np.int64)
    parts = examples.folds(settings.folds, seed)
    for number, (train, test) in enumerate(parts):
        on_progress("calibrating", number / len(parts))
        fitted = Pipeline.fit(examples.select(train), settings, seed=seed, like=whole)
        margins[test], fold[test] = fitted.margin(examples.select(test)), number
    return margins, fold


def refitted(
    examples: Examples,
    settings: Settings,
    whole: Pipeline,
    *,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Estimator, ...]:
    """Estimators fitted on questions drawn with replacement; the normaliser stays.

    Args:
        examples: training steps.
        settings: how to fit, and how often.
        whole: the fit on all of them, whose normaliser and choices are taken over.
        seed: of the draws and fits.
        on_progress: told the stage and how much of it is done.
    """
    x = relative(whole.normalise, examples.x, examples.tokens, examples.domains)
    seen, kind = examples.with_x(x), ESTIMATORS[settings.estimator]
    rng, found = np.random.default_rng(seed), []
    for number in range(settings.refits):
        on_progress("refitting", number / settings.refits)
        found.append(kind.fit(seen.drawn(rng), seed=seed + number, like=whole.estimator))
    return tuple(found)
