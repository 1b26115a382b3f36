"""Shares of counted trials with exact or near-exact intervals."""

from dataclasses import asdict, dataclass
from typing import Any

from pellucid.core.errors import ConfigError

COVERAGE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """How often something happened.

    Attributes:
        value: successes / trials.
        low: lower end of the 95% interval.
        high: its upper end.
        successes: how often it happened.
        trials: out of how many.
    """

    value: float
    low: float
    high: float
    successes: int
    trials: int

    def to_json(self) -> dict[str, Any]:
        """The figure as a JSON-able record."""
        return asdict(self)


def wilson(successes: int, trials: int) -> Proportion:
    """A share with Wilson's score interval (1927): close to nominal coverage on average.

    Args:
        successes: how often it happened.
        trials: out of how many.

    Raises:
        ConfigError: no trials, or more successes than trials.
    """
    from scipy.stats import norm

    _check(successes, trials)
    z = float(norm.ppf((1 + COVERAGE) / 2))
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = (z / (1 + spread)) * (share * (1 - share) / trials + spread / (4 * trials)) ** 0.5
    return Proportion(
        value=share,
        low=0.0 if successes == 0 else centre - half,
        high=1.0 if successes == trials else centre + half,
        successes=successes,
        trials=trials,
    )


def clopper_pearson(successes: int, trials: int) -> Proportion:
    """A share with Clopper and Pearson's interval (1934): never below nominal coverage.

    Args:
        successes: how often it happened.
        trials: out of how many.

    Raises:
        ConfigError: no trials, or more successes than trials.
    """
    from scipy.stats import beta

    _check(successes, trials)
    tail, misses = (1 - COVERAGE) / 2, trials - successes
    return Proportion(
        value=successes / trials,
        low=float(beta.ppf(tail, successes, misses + 1)) if successes else 0.0,
        high=float(beta.ppf(1 - tail, successes + 1, misses)) if misses else 1.0,
        successes=successes,
        trials=trials,
    )


def _check(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(
            f"{successes} of {trials} is no share; give at least one trial and 0 to {trials} "
            "successes"
        )
