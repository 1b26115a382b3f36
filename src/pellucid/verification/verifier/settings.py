"""What a verifier is to be."""

from dataclasses import dataclass
from typing import Literal, final, get_args

from pellucid.core.errors import ConfigError
from pellucid.verification.verifier.calibrate import CALIBRATORS
from pellucid.verification.verifier.estimators import ESTIMATORS

COLUMNS = ("free.", "graph.")
Relative = Literal["none", "right", "length"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every choice in fitting a verifier.

    Attributes:
        columns: names and prefixes of what it reads.
        estimator: `boosting` (the paper's), `histogram` or `logistic`.
        normalise: readings as they are (`none`), relative to right steps (`right`), or to right
            steps of the same length (`length`).
        within: the column that tells domains apart for `normalise`, such as `language`; '' for one.
        calibration: `platt` or `isotonic`.
        recall: the share of questions whose wrong steps are all to be flagged.
        strata: in how many parts by length that is promised.
        folds: parts of the questions whose margins, each from a fit on the others, set the
            calibration and the threshold.
        refits: fits on questions drawn anew, for intervals; 0 for no intervals. Each costs as much
            as the fit itself.

    Raises:
        ConfigError: unknown or out of range.
    """

    columns: tuple[str, ...] = COLUMNS
    estimator: str = "boosting"
    normalise: Relative = "none"
    within: str = ""
    calibration: str = "platt"
    recall: float = 0.95
    strata: int = 1
    folds: int = 5
    refits: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            object.__setattr__(self, "columns", (self.columns,))
        object.__setattr__(self, "columns", tuple(self.columns))
        _ = ESTIMATORS[self.estimator], CALIBRATORS[self.calibration]
        if self.normalise not in get_args(Relative):
            raise ConfigError(
                f"normalise is {self.normalise!r}; use one of {', '.join(get_args(Relative))}"
            )
        if self.within and self.normalise == "none":
            raise ConfigError(
                f"within is {self.within!r} but nothing is normalised; set normalise to right or "
                "length"
            )
        if not 0 < self.recall < 1:
            raise ConfigError(f"recall is {self.recall}; give a share between 0 and 1")
        for name, least in (("strata", 1), ("folds", 2), ("refits", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {least}")
        if self.refits == 1:
            raise ConfigError("refits is 1, which has no spread; give 0 or at least 2")
