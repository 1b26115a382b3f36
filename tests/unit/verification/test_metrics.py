"""Metrics of verifiers against scikit-learn, brute force and what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from pellucid.core.errors import ConfigError, DataError
from pellucid.graphs.resampling import COVERAGE
from pellucid.probes.metrics import auroc as plain_auroc
from pellucid.verification.metrics.calibration import (
    CALIBRATION,
    brier,
    expected_calibration_error,
    reliability,
)
from pellucid.verification.metrics.masses import tally
from pellucid.verification.metrics.matching import matched_weights
from pellucid.verification.metrics.resamples import Resamples, TestPart, difference
from pellucid.verification.metrics.separation import SEPARATION
from support.made_steps import SIGNAL, made_steps


def value(name: str, scores, wrong, weights=None) -> float:
    weights = np.ones(len(wrong)) if weights is None else weights
    return float(SEPARATION[name](tally(np.asarray(scores), wrong, weights[None]))[0])


def oracle(name: str, scores, wrong, weights) -> float:
    scores, wrong, weights = (each[weights > 0] for each in (scores, wrong, weights))
    if name == "auroc":
        return sk.roc_auc_score(wrong, scores, sample_weight=weights)
    if name == "ap":
        return sk.average_precision_score(wrong, scores, sample_weight=weights)
    if name == "aupr":
        precision, recall, _ = sk.precision_recall_curve(wrong, scores, sample_weight=weights)
        return sk.auc(recall, precision)
    fpr, tpr, _ = sk.roc_curve(wrong, scores, sample_weight=weights, drop_intermediate=False)
    return float(fpr[tpr >= 0.95 - 1e-9].min())


@st.composite
def labelled(draw):
    count = draw(st.integers(2, 40))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    wrong = rng.random(count) < 0.4
    wrong[:2] = True, False
    scores = rng.integers(0, draw(st.integers(1, 12)), size=count).astype(float)
    weights = np.where(rng.random(count) < 0.2, 0.0, rng.integers(1, 9, size=count) / 4)
    weights[:2] = 1.0
    return scores, wrong, weights


@pytest.mark.parametrize("name", SEPARATION)
@given(labelled())
def test_metrics_of_order_are_those_of_scikit_learn(name, case) -> None:
    assert value(name, *case) == pytest.approx(oracle(name, *case), abs=1e-12)


@given(labelled(), st.integers(0, 3))
def test_a_weight_counts_as_that_many_copies(case, seed) -> None:
    scores, wrong, _ = case
    copies = np.random.default_rng(seed).integers(1, 4, size=len(scores))
    repeated = (np.repeat(scores, copies), np.repeat(wrong, copies))
    for name in SEPARATION:
        weighted = value(name, scores, wrong, copies.astype(float))
        assert weighted == pytest.approx(value(name, *repeated), abs=1e-12)


@given(labelled())
def test_no_metric_of_order_sees_more_than_the_order(case) -> None:
    scores, wrong, weights = case
    for name in SEPARATION:
        assert value(name, scores, wrong, weights) == value(name, scores**3 - 5, wrong, weights)


def test_false_alarms_of_a_case_worked_by_hand() -> None:
    """20 wrong steps: 19 must be found, which flags the 2 right ones above the 19th."""
    scores = np.array([*range(100, 82, -1), 50, 10, 70, 60, 20, 5], dtype=float)
    wrong = np.array([True] * 20 + [False] * 4)
    assert value("fpr95", scores, wrong) == 0.5


def test_one_class_gives_no_figure() -> None:
    for name in SEPARATION:
        assert np.isnan(value(name, [1.0, 2.0], np.array([True, True])))
        assert np.isnan(value(name, [1.0, 2.0], np.array([True, False]), np.array([1.0, 0.0])))


@pytest.mark.parametrize(
    ("scores", "weights", "words"),
    [
        ([np.nan, 1.0], [1, 1], "1 of 2 scores are NaN"),
        ([1.0], [1, 1], "for 2 steps"),
        ([1.0, 2.0], [1, -1], "at least 0"),
        ([1.0, 2.0], [1, np.nan], "at least 0"),
    ],
)
def test_bad_scores_are_refused(scores, weights, words) -> None:
    with pytest.raises(DataError, match=words):
        value("auroc", scores, np.array([True, False]), np.array(weights, dtype=float))


# Calibration


@given(labelled())
def test_brier_is_that_of_scikit_learn(case) -> None:
    scores, wrong, weights = case
    p = scores / (1 + scores.max())
    found = float(brier(tally(p, wrong, weights[None]))[0])
    expected = sk.brier_score_loss(wrong, p, sample_weight=weights)
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_equal_bins_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    p, wrong = rng.random(100), rng.random(100) < 0.5
    order = np.argsort(-p)
    gaps = [abs(p[rows].mean() - wrong[rows].mean()) for rows in np.split(order, 10)]
    found = expected_calibration_error(tally(p, wrong, np.ones((1, 100))))
    assert found[0] == pytest.approx(np.mean(gaps))


def test_true_probabilities_are_calibrated_and_pushed_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, size=20_000)
    wrong = rng.random(20_000) < p
    measured = [
        float(CALIBRATION["ece"](tally(q, wrong, np.ones((1, len(q)))))[0]) for q in (p, p**0.5)
    ]
    assert measured[0] < 0.015 < 0.15 < measured[1]
    curve = reliability(p, wrong)
    assert sum(each.low <= each.probability <= each.high for each in curve) >= 8
    assert sum(each.steps for each in curve) == 20_000


def test_the_reliability_curve_adds_up_to_the_error() -> None:
    rng = np.random.default_rng(1)
    p, wrong = np.round(rng.random(300), 1), rng.random(300) < 0.3
    weights = rng.integers(0, 5, size=300).astype(float)
    curve = reliability(p, wrong, weights)
    error = float(expected_calibration_error(tally(p, wrong, weights[None]))[0])
    masses = np.array([weights[(p >= 0) & (weights > 0)].sum()])
    assert [each.probability for each in curve] == sorted(each.probability for each in curve)
    assert sum(each.steps for each in curve) == int((weights > 0).sum())
    worst = max(abs(each.probability - each.wrong) for each in curve)
    assert error <= worst + 1e-12
    assert masses[0] > 0
    assert all(0 <= each.low <= each.wrong <= each.high <= 1 for each in curve)


# Resamples


def part(seed: int, count: int = 120) -> tuple[TestPart, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(count) < 0.3
    groups = np.array([f"q{n}" for n in rng.integers(25, size=count)])
    return TestPart(wrong, groups, rng.integers(1, 3, size=count) / 1.0), rng.normal(
        size=count
    ) + wrong


def test_draws_are_of_whole_questions_and_measured_as_if_copied() -> None:
    """Every draw, done by hand: the groups' rows repeated as often as the group was drawn."""
    tested, scores = part(0)
    resamples = Resamples([tested], bootstraps=40, seed=5)
    measured = resamples.measure([scores])
    names, member = np.unique(tested.groups, return_inverse=True)
    assert (measured.draws.sum(1) == len(names)).all()
    for draw, counts in enumerate(measured.draws):
        weights = counts[member] * tested.weights
        assert measured.drawn["auroc"][draw] == pytest.approx(
            plain_auroc(scores, tested.wrong, weights)
        )
        for name in SEPARATION:
            expected = oracle(name, scores, tested.wrong, weights)
            assert measured.drawn[name][draw] == pytest.approx(expected)
    estimate = measured.estimates()["auroc"]
    assert estimate.value == pytest.approx(plain_auroc(scores, tested.wrong, tested.weights))
    low, high = np.quantile(measured.drawn["auroc"], COVERAGE)
    assert (estimate.low, estimate.high) == (low, high)


def test_blocks_of_draws_change_nothing(monkeypatch) -> None:
    tested, scores = part(1)
    whole = Resamples([tested], bootstraps=50).measure([scores])
    monkeypatch.setattr("pellucid.verification.metrics.resamples._CHUNK", 300)
    cut = Resamples([tested], bootstraps=50).measure([scores])
    for name in SEPARATION:
        assert np.array_equal(whole.drawn[name], cut.drawn[name])


def test_parts_are_measured_alone_and_averaged() -> None:
    parts, scores = zip(*(part(seed) for seed in (2, 3)), strict=True)
    moved = [scores[0], scores[1] + 100]  # scores of other fits: another origin
    resamples = Resamples(parts, bootstraps=20)
    measured = resamples.measure(moved)
    single = [plain_auroc(s, p.wrong, p.weights) for s, p in zip(scores, parts, strict=True)]
    assert measured.values["auroc"] == pytest.approx(np.mean(single))
    names = np.unique(np.concatenate([p.groups for p in parts]))
    drawn = [
        plain_auroc(s, p.wrong, p.weights * measured.draws[7][np.searchsorted(names, p.groups)])
        for s, p in zip(scores, parts, strict=True)
    ]
    assert measured.drawn["auroc"][7] == pytest.approx(np.mean(drawn))


def test_a_paired_difference_is_narrower_than_that_of_separate_draws() -> None:
    tested, scores = part(4, 400)
    rng = np.random.default_rng(0)
    resamples = Resamples([tested], bootstraps=300)
    better = resamples.measure([scores + tested.wrong * 0.4])
    worse = resamples.measure([scores + rng.normal(size=400) * 0.1])
    paired = difference(better, worse)["auroc"]
    assert paired.value == pytest.approx(better.values["auroc"] - worse.values["auroc"])
    assert paired.low is not None and paired.high is not None
    other = Resamples([tested], bootstraps=300, seed=9).measure([scores])
    spread = better.drawn["auroc"] - other.drawn["auroc"]
    assert paired.high - paired.low < np.quantile(spread, 0.975) - np.quantile(spread, 0.025)
    assert difference(better, better)["ap"].to_json() == {"value": 0.0, "low": 0.0, "high": 0.0}
    with pytest.raises(ConfigError, match="different draws"):
        difference(better, other)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Groups whose steps are copies of one another: only an interval over groups is honest."""
    truth, covered = 0.7602, 0  # P(N(1, 1) > N(0, 1))
    for seed in range(120):
        rng = np.random.default_rng(seed)
        wrong = rng.random(60) < 0.5
        wrong[:2] = True, False
        scores = np.repeat(rng.normal(size=60) + wrong, 5)
        tested = TestPart(np.repeat(wrong, 5), np.repeat(np.arange(60), 5), np.ones(300))
        found = Resamples([tested], bootstraps=200, seed=seed)
        estimate = found.measure([scores], {"auroc": SEPARATION["auroc"]}).estimates()["auroc"]
        covered += estimate.low <= truth <= estimate.high
    assert 0.86 <= covered / 120 <= 0.99


def test_one_question_has_no_interval() -> None:
    tested = TestPart(np.array([True, False]), np.array(["q", "q"]), np.ones(2))
    assert Resamples([tested]).measure([np.array([2.0, 1.0])]).estimates()["auroc"].low is None


def test_parts_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(DataError, match="no test part"):
        Resamples([])
    with pytest.raises(DataError, match="both classes"):
        Resamples([TestPart(np.array([True, True]), np.array(["a", "b"]), np.ones(2))])
    tested, scores = part(0)
    with pytest.raises(DataError, match="1 test parts"):
        Resamples([tested]).measure([scores, scores])


# Matching


def lengthy(seed: int = 0):
    """Steps whose signal is their length."""
    steps = made_steps(300, seed=seed, rate=0.0)
    rng = np.random.default_rng(seed)
    tokens = steps.columns["tokens"]
    return steps.with_columns(wrong=rng.random(len(steps)) < (tokens - 3) / 12)


def test_length_alone_says_nothing_once_lengths_match() -> None:
    steps = lengthy()
    tokens = steps.columns["tokens"].astype(float)
    plain = value("auroc", tokens, steps.wrong)
    matched = matched_weights(steps)
    assert plain > 0.65
    assert value("auroc", tokens, steps.wrong, matched.weights) == pytest.approx(0.5, abs=1e-12)
    assert value("auroc", tokens**2 % 7, steps.wrong, matched.weights) == pytest.approx(0.5)
    assert matched.weights[steps.wrong].sum() == pytest.approx(matched.weights[~steps.wrong].sum())
    lost = steps.columns["tokens"] == 5  # (5 - 3) / 12: the shortest that can be wrong
    assert (matched.weights[lost] > 0).all()


def test_matching_on_two_columns_leaves_neither() -> None:
    steps = lengthy(1)
    matched = matched_weights(steps, on=("tokens", "number"))
    for name in ("tokens", "number"):
        scores = steps.columns[name].astype(float)
        assert value("auroc", scores, steps.wrong, matched.weights) == pytest.approx(0.5)


def test_strata_without_both_classes_are_counted_and_weigh_nothing() -> None:
    steps = made_steps(50, rate=0.3)
    tokens = np.where(steps.wrong, 3, 4)
    tokens[:10] = 7
    wrong = steps.wrong.copy()
    wrong[:10] = [True] * 4 + [False] * 6
    steps = steps.with_columns(tokens=tokens, wrong=wrong)
    matched = matched_weights(steps)
    assert matched.strata == 1
    assert matched.lost_wrong == int(wrong.sum()) - 4
    assert matched.lost_right == int((~wrong).sum()) - 6
    assert set(np.flatnonzero(matched.weights)) == set(range(10))
    assert matched.worth == pytest.approx(6)
    assert matched.to_json()["lost_wrong"] == matched.lost_wrong


def test_matching_keeps_weights_within_a_stratum_in_proportion() -> None:
    steps = made_steps(60, rate=0.3)
    rng = np.random.default_rng(0)
    steps = steps.with_columns(weight=rng.integers(1, 5, size=len(steps)) / 1.0)
    matched = matched_weights(steps)
    assert np.array_equal(matched.weights[steps.wrong], steps.columns["weight"][steps.wrong])
    for length in np.unique(steps.columns["tokens"]):
        rows = (steps.columns["tokens"] == length) & ~steps.wrong
        ratio = matched.weights[rows] / steps.columns["weight"][rows]
        assert np.ptp(ratio) < 1e-12


def test_bins_match_a_column_without_repeats_roughly() -> None:
    steps = made_steps(400, rate=0.3, shift=1.0)
    with pytest.raises(DataError, match=r"no right step has the same graph\.answer\.signal"):
        matched_weights(steps, on=(SIGNAL,))
    matched = matched_weights(steps, on=(SIGNAL,), bins=10)
    scores = steps.columns[SIGNAL]
    assert value("auroc", scores, steps.wrong) > 0.7
    assert abs(value("auroc", scores, steps.wrong, matched.weights) - 0.5) < 0.05
