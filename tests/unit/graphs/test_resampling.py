import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pellucid.core.errors import GraphError
from pellucid.graphs.resampling import (
    RankCorrelation,
    check_draws,
    interval,
    jaccard,
    weighted_jaccard,
)


@given(st.integers(0, 10**6), st.integers(3, 30), st.integers(1, 6))
def test_the_drawn_correlation_is_scipys_on_the_repeated_rows(seed: int, n: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 8, (2, n)).astype(float)  # with ties
    draws = rng.integers(0, most, n).astype(float)
    found = RankCorrelation.of(first, second)(draws)
    repeated = [np.repeat(column, draws.astype(int)) for column in (first, second)]
    if np.count_nonzero(draws) < 3 or any(len(set(column)) < 2 for column in repeated):
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(*repeated).statistic, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_jaccard_indices_by_sets(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, n)) < 0.5
    draws = rng.integers(0, 3, n)
    rows = np.repeat(np.arange(n), draws)
    either = [row for row in rows if first[row] or second[row]]
    both = [row for row in rows if first[row] and second[row]]
    found = jaccard(first, second, draws.astype(float))
    assert found == pytest.approx(len(both) / len(either)) if either else np.isnan(found)
    same = weighted_jaccard(first.astype(float), second.astype(float), draws.astype(float))
    assert same == pytest.approx(found, nan_ok=True)


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    low, high = interval(lambda d: float(d @ values / 400), 400, bootstraps=2000, rng=rng)
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.01)


def test_no_interval_without_units_draws_or_values() -> None:
    rng = np.random.default_rng(0)
    assert interval(lambda d: 1.0, 1, bootstraps=9, rng=rng) == (None, None)
    assert interval(lambda d: 1.0, 9, bootstraps=0, rng=rng) == (None, None)
    assert interval(lambda d: float("nan"), 9, bootstraps=9, rng=rng) == (None, None)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(GraphError, match="nulls is -1; give 0"):
        check_draws(bootstraps=1, nulls=-1)
