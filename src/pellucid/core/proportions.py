"""Shares of counted trials with exact or near-exact intervals."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    return _with_interval(successes, trials, "wilson")


def clopper_pearson(successes: int, trials: int) -> Proportion:
    """A share with Clopper and Pearson's interval (1934): never below nominal coverage.

    Args:
        successes: how often it happened.
        trials: out of how many.

    Raises:
        ConfigError: no trials, or more successes than trials.
    """
    return _with_interval(successes, trials, "exact")


def _with_interval(successes: int, trials: int, method: Literal["wilson", "exact"]) -> Proportion:
    from scipy.stats import binomtest

    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(
            f"{successes} of {trials} is no share; give at least one trial and 0 to {trials} "
            "successes"
        )
    found = binomtest(successes, trials).proportion_ci(COVERAGE, method=method)
    return Proportion(
        value=successes / trials,
        low=float(found.low),
        high=float(found.high),
        successes=successes,
        trials=trials,
    )
