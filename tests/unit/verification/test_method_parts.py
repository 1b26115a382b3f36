"""The parts that methods are made of: weights, folds, features, choices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from pellucid.core.errors import DataError
from pellucid.probes.metrics import auroc
from pellucid.verification.methods.attention_probe import AttentionProbe
from pellucid.verification.methods.boosting import DIFFERENT, FREQUENT, boosting, screened
from pellucid.verification.methods.features import Bag, Columns
from pellucid.verification.methods.free import FreeScore
from pellucid.verification.methods.learned import Learned
from pellucid.verification.methods.logistic import fit
from pellucid.verification.methods.probes import Probe
from pellucid.verification.methods.text import Structure, Words, describe
from pellucid.verification.methods.training import FOLDS, Training, training
from pellucid.verification.steps.step_set import StepSet
from support.step_sets import synthetic_steps


def known(steps: StepSet) -> Training:
    return training(steps, "a method", seed=0)


def test_both_classes_weigh_the_same_and_a_step_counts_as_often_as_it_stands_for() -> None:
    steps = synthetic_steps(200, seed=4)
    made = known(steps)
    assert made.balanced.mean() == pytest.approx(1)
    assert made.balanced[steps.wrong].sum() == pytest.approx(made.balanced[~steps.wrong].sum())
    right = np.flatnonzero(~steps.wrong)
    shares = made.balanced[right] / steps.columns["weight"][right]
    assert np.ptp(shares) == pytest.approx(0)


def test_a_weight_counts_as_copies_of_the_step() -> None:
    steps = synthetic_steps(200, seed=4)
    scores = np.random.default_rng(0).integers(0, 9, 200).astype(float)
    often = np.repeat(np.arange(200), steps.columns["weight"].astype(int))
    rows = np.arange(200)
    repeated = auroc(scores[often], steps.wrong[often])
    assert known(steps).separation(scores, rows) == pytest.approx(repeated)


def test_folds_never_cut_a_question_and_hold_every_step_out_once() -> None:
    steps = synthetic_steps(200, seed=4)
    groups = steps.columns["group"]
    parts = known(steps).folds
    assert len(parts) == FOLDS
    for learn, rest in parts:
        assert not set(groups[learn]) & set(groups[rest])
    assert sorted(np.concatenate([rest for _, rest in parts])) == list(range(200))


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    steps = synthetic_steps(100)
    bad = steps.with_columns(weight=np.where(np.arange(100) == 5, weight, 1.0))
    with pytest.raises(DataError, match="positive weight"):
        known(bad)


def test_steps_of_one_question_cannot_be_validated() -> None:
    steps = synthetic_steps(100).with_columns(group=np.array(["only"] * 100))
    with pytest.raises(DataError, match="1 groups cannot be split"):
        known(steps)


def test_the_logistic_reading_is_scikit_learns() -> None:
    steps = synthetic_steps(200, seed=4)
    made, rows = known(steps), np.arange(200)
    x = steps.arrays["hidden"][:, 1].astype(np.float64)
    z = (x - x.mean(0)) / x.std(0)
    oracle = LogisticRegression(C=0.3, class_weight="balanced", tol=1e-8, max_iter=5000)
    oracle.fit(z, steps.wrong, steps.columns["weight"] * 200 / steps.columns["weight"].sum())
    ours = fit(x, made, rows, 0.3)(x)
    assert np.corrcoef(ours, oracle.decision_function(z))[0, 1] > 0.9999


def test_columns_see_the_order_of_values_whatever_their_scale() -> None:
    steps = synthetic_steps(150, seed=4)
    values = np.random.default_rng(0).normal(size=150)
    normal = []
    for each in (values, np.exp(3 * values)):
        columns = Columns(["it"])
        columns.fit(steps.with_columns(it=each))
        normal.append(columns.matrix(steps.with_columns(it=each))[:, 1])
    np.testing.assert_allclose(normal[0], normal[1])
    assert np.corrcoef(normal[0], values)[0, 1] > 0.99


def test_columns_beyond_what_training_saw_stay_finite_and_constants_say_nothing() -> None:
    steps = synthetic_steps(100)
    columns = Columns(["it", "same"], products=True)
    columns.fit(steps.with_columns(it=np.arange(100.0), same=np.full(100, 3.0)))
    far = steps.with_columns(it=np.full(100, 1e30), same=np.full(100, 4.0))
    x = columns.matrix(far)
    assert np.isfinite(x).all()
    assert x.shape == (100, 2 + 2 + 3)
    assert (x[:, 1] == 0).all()


def test_columns_that_are_not_finite_are_refused() -> None:
    steps = synthetic_steps(100).with_columns(it=np.full(100, np.nan))
    with pytest.raises(DataError, match="100 values of it are not finite"):
        Columns(["it"]).fit(steps)


def test_forms_of_a_bag() -> None:
    steps = synthetic_steps(50)
    bag = steps.bags["direct"].toarray()
    tokens = steps.columns["tokens"][:, None]
    np.testing.assert_allclose(Bag("direct").matrix(steps).toarray(), bag)
    np.testing.assert_allclose(Bag("direct", "mean").matrix(steps).toarray(), bag / tokens)
    np.testing.assert_array_equal(Bag("direct", "present").matrix(steps).toarray(), bag != 0)


def test_a_form_is_chosen_by_what_separates_held_out_steps() -> None:
    """Sums over tokens drown a rate that their means show."""
    rng = np.random.default_rng(0)
    steps = synthetic_steps(300, seed=4)
    tokens = rng.integers(1, 60, 300)
    rate = np.where(steps.wrong, 1.1, 1.0) + 0.02 * rng.normal(size=300)
    made = StepSet(
        columns={**steps.columns, "tokens": tokens},
        bags={"activations": csr_matrix((rate * tokens)[:, None])},
    )
    method = Learned("it", "activations", [Bag("activations"), Bag("activations", "mean")])
    method.fit(made, seed=0)
    assert auroc(method.score(made), made.wrong) > 0.95


def test_boosting_looks_at_frequent_features_and_at_rare_ones_that_tell() -> None:
    steps = synthetic_steps(300, planted=["activations"], seed=4)
    x, made = steps.bags["activations"], known(steps)
    kept = screened(x, made, np.arange(300))
    assert len(kept) == len(set(kept)) == FREQUENT + DIFFERENT
    assert set(range(390, 400)) <= set(kept)
    dense = screened(x.toarray(), made, np.arange(300))
    np.testing.assert_array_equal(dense, kept)


def test_boosting_reads_signs_of_rare_features_and_sparse_as_dense() -> None:
    steps = synthetic_steps(400, seed=4)
    rng = np.random.default_rng(0)
    there = rng.random(400) < 0.1
    values = np.where(there, np.where(steps.wrong, -1.0, 1.0), 0.0)[:, None]
    made = known(steps)
    sparse, dense = boosting(csr_matrix(values), made), boosting(values, made)
    np.testing.assert_array_equal(sparse(csr_matrix(values)), dense(values))
    assert auroc(dense(values[there]), steps.wrong[there]) == 1


def test_a_score_that_points_the_wrong_way_is_turned_round() -> None:
    steps = synthetic_steps(200, seed=4)
    away = steps.with_columns(**{"free.it": np.where(steps.wrong, 1.0, 2.0)})
    method = FreeScore("it", ["free.it"])
    method.fit(away, seed=0)
    assert method.chosen == ("free.it", -1.0)
    assert auroc(method.score(away), steps.wrong) == 1


def test_a_temperature_is_chosen_on_training_steps() -> None:
    steps = synthetic_steps(200, seed=4)
    rng = np.random.default_rng(0)
    noise = {f"free.t{n}": rng.normal(size=200) for n in range(3)}
    made = steps.with_columns(**noise, **{"free.good": rng.normal(size=200) + 2 * steps.wrong})
    method = FreeScore("it", [*noise, "free.good"])
    method.fit(made, seed=0)
    assert method.chosen == ("free.good", 1.0)


def test_a_probe_finds_the_pooling_and_the_layer() -> None:
    steps = synthetic_steps(300, planted=["hidden"], seed=4)
    noise = {
        name: np.random.default_rng(n).normal(size=steps.arrays[name].shape)
        for n, name in enumerate(("hidden", "hidden_last"))
    }
    only = StepSet(columns=steps.columns, arrays={**steps.arrays, **noise})
    probe = Probe("it", "logistic")
    probe.fit(only, seed=0)
    assert probe.place.layer == 1
    assert "hidden_answer" in probe.place.arrays


def test_the_attention_probe_finds_one_token_among_many() -> None:
    """A mark that is louder than the rest says which token to read; the mean drowns it."""
    steps = synthetic_steps(400, seed=4)
    rng = np.random.default_rng(0)
    tokens = steps.ragged["hidden_tokens"]
    values = rng.normal(size=tokens.values.shape)
    begins = np.cumsum(tokens.lengths) - tokens.lengths
    marked = begins + rng.integers(tokens.lengths)
    values[:, 1, 0] = 3 * rng.choice([-1, 1], size=len(values))
    values[:, 1, 1] = 0
    values[marked, 1, 1] = 6
    values[marked, 1, 0] = np.where(steps.wrong, 3, -3)
    ragged = {"hidden_tokens": type(tokens)(values.astype(np.float16), tokens.lengths)}
    made = StepSet(columns=steps.columns, ragged=ragged)
    probe, rows = AttentionProbe(), np.arange(400)
    probe.fit(made.select(rows[:280]), seed=0)
    assert probe.layer == 1
    test = made.select(rows[280:])
    assert auroc(probe.score(test), test.wrong) > 0.9


def test_the_structure_of_a_step() -> None:
    found = describe(["(", "(", "3", "+", "-4", ")", "*", "2", ")"], ["(", "7", "*", "2", ")"])
    expected = {
        "old": "( 3 + -4 )",
        "new": "7",
        "left 1": "(",
        "right 1": "*",
        "right 2": "2",
        "old has +": 1,
        "old number 0": 3.0,
        "old size 1": 4.0,
        "new number 0": 7.0,
        "old words": 5,
        "place": 1,
        "depth": 1,
    }
    assert expected.items() <= found.items()
    assert not {"1", "-1", -1.0} & set(found.values()), "nothing is computed"


@given(st.lists(st.text(max_size=4)), st.lists(st.text(max_size=4)))
def test_any_text_has_a_structure(before: list[str], after: list[str]) -> None:
    found = describe(before or [""], after or [""])
    assert all(isinstance(each, str) or np.isfinite(each) for each in found.values())


@pytest.mark.parametrize("features", [Words(), Words(2, weighted=False), Structure()])
def test_words_that_training_never_saw_are_left_out(features: Words | Structure) -> None:
    steps = synthetic_steps(100)
    features.fit(steps)
    new = np.array(["zebra unseen"] * 100)
    x = features.matrix(steps.with_columns(text=new, before=new))
    assert x.shape == features.matrix(steps).shape


def test_texts_without_a_word_in_common_make_no_features() -> None:
    each = np.array([f"only{n}" for n in range(100)])
    steps = synthetic_steps(100).with_columns(text=each, before=each)
    words = Words()
    words.fit(steps)
    assert words.matrix(steps).nnz == 0
