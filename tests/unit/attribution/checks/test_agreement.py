"""Rank correlations and their resampling against scipy and against repeated rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pellucid.attribution.checks.agreement import _weighted_spearman, agreement, spearman

PAIRS = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.floats(-1e3, 1e3)), min_size=3, max_size=30
)


@given(PAIRS)
def test_spearman_agrees_with_scipy(pairs):
    a, b = np.array(pairs).T
    ours = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


@given(PAIRS, st.integers(0, 99))
def test_a_draw_is_the_correlation_of_the_rows_it_repeats(pairs, seed):
    a, b = np.array(pairs).T
    draws = np.random.default_rng(seed).multinomial(len(a), np.full(len(a), 1 / len(a)), size=3)
    values = _weighted_spearman(a, b, draws.astype(float))
    for draw, value in zip(draws, values, strict=True):
        repeated = spearman(np.repeat(a, draw), np.repeat(b, draw))
        assert value == pytest.approx(np.nan if repeated is None else repeated, nan_ok=True)


def test_the_interval_draws_features_with_all_their_observations():
    """Copies of the same features add no information, so they must not narrow the interval."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=12)
    measured = predicted + rng.normal(size=12)
    one = agreement("x", predicted, measured, rng=np.random.default_rng(1))
    copies = [np.tile(values, (8, 1)) for values in (predicted, measured)]
    eight = agreement("x", *copies, rng=np.random.default_rng(1))
    assert eight["spearman_x_interval"] == pytest.approx(one["spearman_x_interval"])
    apart = agreement(
        "x", *copies, units=np.arange(96).reshape(8, 12), rng=np.random.default_rng(1)
    )
    width = {name: np.diff(r["spearman_x_interval"]) for name, r in (("a", apart), ("e", eight))}
    assert width["a"] < 0.6 * width["e"]


def test_what_is_undefined_is_none():
    rng = np.random.default_rng(0)
    empty = agreement("x", np.zeros((2, 0)), np.zeros((2, 0)), rng=rng)
    assert set(empty.values()) == {None}
    constant = agreement("x", np.ones((2, 4)), rng.normal(size=(2, 4)), rng=rng)
    assert constant["spearman_x"] is None
    assert constant["spearman_x_interval"] is None
