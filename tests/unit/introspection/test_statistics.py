from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact

from pellucid.core.errors import ConfigError
from pellucid.introspection.statistics import (
    exact_power,
    kappa,
    match_p_value,
    net,
    rate_of,
    trials_needed,
)


@pytest.mark.parametrize("n, rate, control", [(12, 0.7, 0.1), (9, 1.0, 0.0), (15, 0.4, 0.2)])
def test_power_is_that_of_fishers_test_table_by_table(n, rate, control):
    expected = 0.0
    for a, b in product(range(n + 1), repeat=2):
        p = fisher_exact([[a, n - a], [b, n - b]], alternative="greater").pvalue
        if p <= 0.025:
            expected += binom.pmf(a, n, rate) * binom.pmf(b, n, control)
    assert exact_power(n, rate, control) == pytest.approx(expected, abs=1e-9)


def test_trials_needed_reach_the_power_and_one_fewer_does_not():
    n = trials_needed(0.5, 0.1)
    assert exact_power(n, 0.5, 0.1) >= 0.8 > exact_power(n - 1, 0.5, 0.1)


def test_planning_for_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"rates of 0.1 and 0.1 .* control < rate"):
        trials_needed(0.1, 0.1)
    with pytest.raises(ConfigError, match="more than 2000 trials"):
        trials_needed(0.101, 0.1)


def test_a_rate_of_unlike_trials_has_wilsons_interval():
    successes = np.array([[1.0]] * 10 + [[0.0]] * 90)
    rate = rate_of(successes)
    assert (rate.rate, rate.n) == (0.1, 100)
    assert (rate.low, rate.high) == (
        pytest.approx(0.0552, abs=1e-3),
        pytest.approx(0.1744, abs=1e-3),
    )


def test_repeats_that_are_copies_add_nothing():
    once = np.array([[1.0]] * 5 + [[0.0]] * 15)
    copied = rate_of(np.repeat(once, 6, axis=1))
    alone = rate_of(once)
    assert copied.n == 120
    assert (copied.low, copied.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 3))
def test_a_net_is_antisymmetric_and_holds_its_value(seed, concepts, repeats):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 2, (2, concepts, repeats)).astype(float)
    there = net(first, second, bootstraps=200, seed=0)
    back = net(second, first, bootstraps=200, seed=0)
    assert there.value == pytest.approx((first - second).mean())
    assert (there.value, there.low) == (pytest.approx(-back.value), pytest.approx(-back.high))


def test_a_net_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        first = (rng.random((40, 2)) < 0.5).astype(float)
        second = (rng.random((40, 2)) < 0.3).astype(float)
        found = net(first, second, bootstraps=200, seed=trial)
        covered += found.low <= 0.2 <= found.high
    assert covered >= 178  # 95% of 200, less three standard deviations


def test_one_name_for_everything_matches_no_better_than_chance():
    words = [f"word{number}" for number in range(12)]
    constant = [["word3", "word3"] for _ in words]
    right = [[word, None] for word in words]
    assert match_p_value(constant, words, draws=500, seed=0) == 1.0
    assert match_p_value(right, words, draws=500, seed=0) < 0.01


def test_kappa_of_a_worked_example():
    # 20 + 15 of 50 agreed; marginals 25/25 and 30/20: (0.7 - 0.5) / (1 - 0.5).
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(first, second) == pytest.approx(0.4)
    assert np.isnan(kappa(["yes"], ["yes"]))
