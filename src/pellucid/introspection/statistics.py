"""Rates, paired differences, power, agreement: the figures of the suite.

Trials come as arrays `[C, R]`: C concepts, R repeats of each. Concepts are the units that are drawn
again in a bootstrap, because repeats of one concept are alike. Suffixes: C concepts, R repeats.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.core.errors import ConfigError
from pellucid.graphs.resampling import interval

Trials = Float64[np.ndarray, "C R"]
_LARGEST_CELL = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of trials with its 95% interval; `n` is how many trials it is of."""

    rate: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A paired difference with its 95% interval over concepts."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    @property
    def includes_zero(self) -> bool:
        """Whether no difference is within the interval."""
        return self.low <= 0 <= self.high

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


def rate_of(successes: Trials) -> Rate:
    """A share with Wilson's interval for the trials' effective number.

    Repeats of a concept are alike, so n trials are worth n / (1 + (R - 1) r), where r is the
    intraclass correlation of the concepts (from the analysis of variance, at least 0).

    Args:
        successes: 0 or 1.
    """
    from scipy.stats import norm

    n = successes.size
    share = float(successes.mean())
    effective = n / (1 + (successes.shape[1] - 1) * _intraclass(successes))
    z = float(norm.ppf(0.975))
    middle = (share + z * z / (2 * effective)) / (1 + z * z / effective)
    spread = np.sqrt(share * (1 - share) / effective + (z / (2 * effective)) ** 2)
    half = float(z * spread / (1 + z * z / effective))
    return Rate(rate=share, low=max(0.0, middle - half), high=min(1.0, middle + half), n=n)


def _intraclass(successes: Trials) -> float:
    """One-way ANOVA estimate of the intraclass correlation, within 0 to 1."""
    groups, repeats = successes.shape
    if groups < 2 or repeats < 2:
        return 0.0
    between = float(successes.mean(axis=1).var(ddof=1)) * repeats
    within = float(successes.var(axis=1, ddof=1).mean())
    total = between + (repeats - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total > 0 else 0.0


def net(first: Trials, second: Trials, *, bootstraps: int, seed: int) -> Net:
    """Mean of the first less the second, trial by trial, with a bootstrap over concepts.

    Args:
        first: values of the arm in question.
        second: those of its control, the same trials in the same order.
        bootstraps: draws of concepts.
        seed: of the draws; equal seeds give equal draws, so that nets can be compared.
    """
    difference = (first - second).mean(axis=1)
    low, high = interval(
        lambda draws: float(draws @ difference / draws.sum()),
        len(difference),
        bootstraps=bootstraps,
        rng=np.random.default_rng(seed),
    )
    value = float(difference.mean())
    return Net(
        value=value,
        low=float("-inf") if low is None else low,
        high=float("inf") if high is None else high,
    )


def exact_power(n: int, rate: float, control: float, *, alpha: float = 0.05) -> float:
    """Chance that Fisher's exact test tells two rates apart with n trials each.

    Args:
        n: trials a cell.
        rate: the true rate.
        control: the true rate of the control arm, lower.
        alpha: two-sided level; half of it is spent on this side.
    """
    from scipy.stats import binom, hypergeom

    first, second = (_likely(n, each) for each in (rate, control))
    k, m = np.meshgrid(first, second, indexing="ij")
    rejected = hypergeom.sf(k - 1, 2 * n, k + m, n) <= alpha / 2
    chances = np.outer(binom.pmf(first, n, rate), binom.pmf(second, n, control))
    return float(chances[rejected].sum())


def _likely(n: int, rate: float) -> Int64[np.ndarray, " k"]:
    """The counts that occur with a chance above 1e-12."""
    from scipy.stats import binom

    counts = np.arange(n + 1)
    return counts[binom.pmf(counts, n, rate) > 1e-12]


def trials_needed(
    rate: float = 0.10, control: float = 0.02, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Trials a cell with which `exact_power` reaches a power, and with one fewer does not.

    (An exact test's power is a sawtooth in n, so there may be a smaller such number.)

    Args:
        rate: the smallest rate worth finding.
        control: the control arm's rate.
        power: the chance of finding it.
        alpha: two-sided level of the test.

    Raises:
        ConfigError: the rates are not in order, or the cell would be larger than 2,000.
    """
    if not 0 <= control < rate <= 1 or not 0 < power < 1:
        raise ConfigError(
            f"rates of {rate} and {control} with power {power} cannot be planned for; give "
            "0 <= control < rate <= 1 and a power between 0 and 1"
        )
    low, high = 1, 2
    while exact_power(high, rate, control, alpha=alpha) < power:
        low, high = high, min(2 * high, _LARGEST_CELL)
        if low == high:
            raise ConfigError(
                f"to tell {rate} from {control} takes more than {_LARGEST_CELL} trials a cell; "
                "ask for a larger difference"
            )
    while high > low + 1:
        middle = (low + high) // 2
        if exact_power(middle, rate, control, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def match_p_value(
    guesses: Sequence[Sequence[str | None]], words: Sequence[str], *, draws: int, seed: int
) -> float:
    """Chance of as many right names if the injected words were dealt out to the concepts anew.

    Args:
        guesses: for every concept, the names given in its trials, None where there was none.
        words: the concepts.
        draws: permutations.
        seed: of the permutations.
    """
    named = np.array([[guess or "" for guess in row] for row in guesses])
    table = np.array([[(row == word).sum() for word in words] for row in named])
    rng, count = np.random.default_rng(seed), np.arange(len(words))
    found = int(table.trace())
    hits = sum(int(table[count, rng.permutation(count)].sum()) >= found for _ in range(draws))
    return (hits + 1) / (draws + 1)


def kappa(first: Sequence[object], second: Sequence[object]) -> float:
    """Cohen's agreement of two judges beyond chance; NaN where chance leaves no room.

    Args:
        first: labels of one judge.
        second: of the other, on the same answers.
    """
    pairs = list(zip(first, second, strict=True))
    labels = set(first) | set(second)
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    by_chance = sum(list(first).count(x) * list(second).count(x) for x in labels) / len(pairs) ** 2
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")
