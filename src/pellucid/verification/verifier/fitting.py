"""One fit of the pipeline, and the fits around it that calibrate it and say how sure it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

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
    def fit(cls, examples: Examples, settings: Settings, *, seed: int) -> "Pipeline":
        """Fit both on the same steps.

        Args:
            examples: training steps.
            settings: which estimator, and relative to what.
            seed: of everything random.
        """
        normalise = None
        if settings.normalise != "none":
            normalise = Normalise.fit(examples, by_length=settings.normalise == "length")
        seen = examples.with_x(relative(normalise, examples.x, examples.tokens, examples.domains))
        return cls(
            normalise=normalise, estimator=ESTIMATORS[settings.estimator].fit(seen, seed=seed)
        )

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
    examples: Examples, settings: Settings, *, seed: int, on_progress: OnProgress
) -> Float64[np.ndarray, " N"]:
    """The margin of every step, from a fit on questions other than its own.

    Args:
        examples: training steps.
        settings: how to fit, and on how many parts.
        seed: of the parts and fits.
        on_progress: told the stage and how much of it is done.

    Raises:
        DataError: the questions cannot be split with both classes on both sides.
    """
    margins = np.empty(len(examples))
    parts = examples.folds(settings.folds, seed)
    for number, (train, test) in enumerate(parts):
        on_progress("calibrating", number / len(parts))
        fitted = Pipeline.fit(examples.select(train), settings, seed=seed)
        margins[test] = fitted.margin(examples.select(test))
    return margins


def refitted(
    examples: Examples,
    normalise: Normalise | None,
    settings: Settings,
    *,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Estimator, ...]:
    """Estimators fitted on questions drawn with replacement; the normaliser stays.

    Args:
        examples: training steps.
        normalise: of the fit itself.
        settings: how to fit, and how often.
        seed: of the draws and fits.
        on_progress: told the stage and how much of it is done.
    """
    seen = examples.with_x(relative(normalise, examples.x, examples.tokens, examples.domains))
    rng, found = np.random.default_rng(seed), []
    for number in range(settings.refits):
        on_progress("refitting", number / settings.refits)
        found.append(ESTIMATORS[settings.estimator].fit(seen.drawn(rng), seed=seed + number))
    return tuple(found)
