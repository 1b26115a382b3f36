"""From a margin to the probability that a step is wrong."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.registry import Registry

Margins = Float64[np.ndarray, " N"]
Labels = Bool[np.ndarray, " N"]


class Calibrator(ABC):
    """A rising function from margins to probabilities.

    Attributes:
        name: in settings and on the command line.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, margins: Margins, wrong: Labels, weights: Margins) -> Self:
        """Learn from margins of steps that the estimator was not fitted on.

        Args:
            margins: of steps of both classes.
            wrong: the truth.
            weights: how much each step counts.
        """

    @abstractmethod
    def __call__(self, margins: Margins) -> Margins:
        """The probability of each margin.

        Args:
            margins: of any steps.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """What `arrays` gave, as a calibrator again.

        Args:
            arrays: by name.

        Raises:
            ValueError: they do not form a calibrator.
            KeyError: one is missing.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Platt(Calibrator):
    """`1 / (1 + exp(-(slope * margin + intercept)))` (Platt 1999), with his softened targets.

    Attributes:
        slope: at least 0: where margins say the opposite of the truth, every step gets the same
            probability.
        intercept: the log-odds at margin 0.
    """

    name: ClassVar[str] = "platt"
    slope: float
    intercept: float

    @classmethod
    def fit(cls, margins: Margins, wrong: Labels, weights: Margins) -> Self:
        """Maximum likelihood."""
        from scipy.optimize import minimize
        from scipy.special import expit

        counts = wrong.sum(), (~wrong).sum()
        target = np.where(wrong, (counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2))
        center, spread = margins.mean(), max(margins.std(), 1e-12)
        z, w = (margins - center) / spread, weights / weights.sum()

        def lost(line: np.ndarray) -> tuple[float, np.ndarray]:
            log_odds = line[0] * z + line[1]
            gap = w * (expit(log_odds) - target)
            value = w @ (np.logaddexp(0, log_odds) - target * log_odds)
            return float(value), np.array([gap @ z, gap.sum()])

        found = minimize(
            lost,
            np.array([1.0, 0.0]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None), (None, None)],
            options={"ftol": 1e-14, "gtol": 1e-9},
        )
        slope = float(found.x[0] / spread)
        return cls(slope=slope, intercept=float(found.x[1] - slope * center))

    def __call__(self, margins: Margins) -> Margins:
        """The probability of each margin."""
        from scipy.special import expit

        return expit(self.slope * margins + self.intercept)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""
        return {"line": np.array([self.slope, self.intercept], dtype=np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """What `arrays` gave, as a calibrator again."""
        slope, intercept = arrays["line"].tolist()
        if not (np.isfinite([slope, intercept]).all() and slope >= 0):
            raise ValueError("the line of the calibration does not rise")
        return cls(slope=slope, intercept=intercept)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isotonic(Calibrator):
    """The rising step function nearest to the outcomes, lines between its corners.

    It needs more steps than `Platt` does, and gives many steps the same probability.

    Attributes:
        margins: of its corners, rising.
        probabilities: at the corners.
    """

    name: ClassVar[str] = "isotonic"
    margins: Float64[np.ndarray, " K"]
    probabilities: Float64[np.ndarray, " K"]

    @classmethod
    def fit(cls, margins: Margins, wrong: Labels, weights: Margins) -> Self:
        """Pool adjacent violators."""
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        model.fit(margins, wrong.astype(np.float64), sample_weight=weights)
        return cls(
            margins=np.asarray(model.X_thresholds_, dtype=np.float64),
            probabilities=np.asarray(model.y_thresholds_, dtype=np.float64),
        )

    def __call__(self, margins: Margins) -> Margins:
        """The probability of each margin."""
        return np.interp(margins, self.margins, self.probabilities)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""
        return {"margins": self.margins, "probabilities": self.probabilities}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """What `arrays` gave, as a calibrator again."""
        margins, probabilities = arrays["margins"], arrays["probabilities"]
        if (
            not len(margins)
            or margins.shape != probabilities.shape
            or not (np.diff(margins) > 0).all()
            or not (np.diff(probabilities, prepend=0, append=1) >= 0).all()
        ):
            raise ValueError("the corners of the calibration do not rise from 0 to 1")
        return cls(margins=margins, probabilities=probabilities)


CALIBRATORS: Registry[type[Calibrator]] = Registry(
    "calibration", {"platt": Platt, "isotonic": Isotonic}
)
