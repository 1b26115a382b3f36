import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pellucid.core.errors import DataError
from pellucid.core.proportions import clopper_pearson
from pellucid.probes.metrics import auroc, estimate, recall_at, separation, threshold_at

SCORES = st.lists(st.integers(-3, 3), min_size=4, max_size=30)


@given(SCORES, st.randoms(use_true_random=False))
def test_auroc_is_that_of_sklearn_with_ties_and_weights(scores, random) -> None:
    labels = np.array([True, False] + [random.random() < 0.5 for _ in scores[2:]])
    weights = np.array([1.0, 1.0] + [float(random.randrange(4)) for _ in scores[2:]])
    values = np.array(scores, dtype=float)
    repeated = np.repeat(np.arange(len(values)), weights.astype(int))
    expected = roc_auc_score(labels[repeated], values[repeated])
    assert auroc(values, labels, weights) == pytest.approx(expected)


@given(SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5]))
def test_threshold_is_the_lowest_that_lets_few_enough_pass(scores, fpr) -> None:
    values = np.array(scores, dtype=float)
    threshold = threshold_at(values, fpr)
    assert (values > threshold).mean() <= fpr
    lower = values[values < threshold]
    if len(lower):
        assert (values > lower.max()).mean() > fpr


def test_recall_counts_positives_above_the_threshold_of_negatives() -> None:
    scores = np.concatenate([np.arange(100.0), [50.0, 98.5, 99.5, 200.0]])
    labels = np.arange(104) >= 100
    assert recall_at(scores, labels, 0.01) == 0.75  # one of 100 negatives may pass: above 98
    assert recall_at(scores, labels, 0.001) == 0.5
    assert recall_at(scores, labels, 0.5) == 1.0


def test_an_interval_over_groups_is_wider_than_over_rows_when_groups_agree() -> None:
    rng = np.random.default_rng(0)
    shift = rng.standard_normal(20)
    groups = np.repeat(np.arange(20), 20)
    labels = rng.random(400) < 0.5
    scores = shift[groups] + labels * 0.5
    labels = labels & (groups % 2 == 0) | (~labels & (groups % 2 == 1))
    whole = estimate(auroc, scores, labels, [str(g) for g in groups], bootstraps=200)
    rows = estimate(auroc, scores, labels, [str(g) for g in range(400)], bootstraps=200)
    assert whole.low < rows.low < whole.value < rows.high < whole.high


def test_separation_of_perfect_scores() -> None:
    labels = np.arange(40) % 2 == 0
    found = separation(labels.astype(float), labels, [str(i // 2) for i in range(40)])
    assert (found["value"], found["low"], found["high"]) == (1, 1, 1)
    assert found["recall_at_fpr"]["0.001"]["value"] == 1
    assert (found["positives"], found["negatives"]) == (20, 20)


def test_a_calibrated_rate_holds_on_new_scores() -> None:
    """The interval of the realised share on new traffic covers the rate in about 95% of draws."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        threshold = threshold_at(rng.standard_normal(20_000), 0.01)
        fresh = rng.standard_normal(2_000)
        found = clopper_pearson(int((fresh > threshold).sum()), len(fresh))
        covered += found.low <= 0.01 <= found.high
    assert covered >= 180


def test_bad_scores_are_refused() -> None:
    with pytest.raises(DataError, match="0 of 3 examples are positive"):
        estimate(auroc, np.zeros(3), np.zeros(3, dtype=bool), ["a", "b", "c"])
    with pytest.raises(DataError, match="1 scores are NaN"):
        estimate(auroc, np.array([np.nan, 1]), np.array([True, False]), ["a", "b"])
    with pytest.raises(DataError, match="on 0 benign scores"):
        threshold_at(np.array([]), 0.01)
    with pytest.raises(DataError, match="of which 1 are NaN"):
        threshold_at(np.array([0.0, np.nan]), 0.01)
