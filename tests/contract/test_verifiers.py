"""Every estimator, in a verifier: learns, explains, promises, is saved, and refuses bad steps."""

from functools import cache

import numpy as np
import pytest

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.metrics import auroc
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier import Verifier, load_verifier
from pellucid.verification.verifier.as_method import ColumnsMethod
from pellucid.verification.verifier.estimators import ESTIMATORS
from pellucid.verification.verifier.settings import Settings
from support.made_steps import NOISE, SIGNAL, made_steps

COLUMNS = ("graph.", "tokens")
each_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@cache
def training() -> StepSet:
    return made_steps(100, seed=1, shift=3.0)


@cache
def fresh() -> StepSet:
    return made_steps(200, seed=2, shift=3.0)


@cache
def fitted(name: str) -> Verifier:
    return Verifier.fit(
        training(), columns=COLUMNS, estimator=name, normalise="right", folds=3, refits=3, seed=4
    )


def area(scores: np.ndarray, steps: StepSet) -> float:
    return auroc(scores, steps.wrong)


@each_estimator
def test_it_finds_the_signal_on_new_questions(name: str) -> None:
    verifier = fitted(name)
    assert verifier.columns == ("graph.answer.noise", "graph.answer.question", SIGNAL, "tokens")
    limit = area(fresh().columns[SIGNAL], fresh())
    assert area(verifier.margin(fresh()), fresh()) > limit - 0.06
    recorded = verifier.record["out_of_fold"]["auroc"]
    assert recorded["low"] < limit < recorded["high"] + 0.06
    assert verifier.record["wrong"] == training().wrong.sum()
    assert verifier.record["questions"] == 100


@each_estimator
def test_noise_teaches_it_nothing(name: str) -> None:
    areas = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        train, test = (
            s.with_columns(wrong=rng.random(len(s)) < 0.25) for s in (training(), fresh())
        )
        method = ColumnsMethod("noise", "graph", Settings(columns=COLUMNS, estimator=name))
        method.fit(train, seed=seed)
        areas.append(area(method.score(test), test))
    assert abs(np.mean(areas) - 0.5) < 0.05


@each_estimator
def test_probabilities_are_shares_that_rise_with_the_margin(name: str) -> None:
    verifier = fitted(name)
    p, margin = verifier.probability(fresh()), verifier.margin(fresh())
    assert p.shape == (len(fresh()),)
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(margin, kind="stable")]) >= 0).all()
    assert abs(p.mean() - fresh().wrong.mean()) < 0.08


@each_estimator
def test_the_interval_holds_the_probability(name: str) -> None:
    verifier = fitted(name)
    ends, p = verifier.interval(fresh()), verifier.probability(fresh())
    assert ends.shape == (len(fresh()), 2)
    assert ((ends[:, 0] <= p) & (p <= ends[:, 1])).all()
    assert (ends[:, 1] > ends[:, 0]).mean() > 0.9


@each_estimator
def test_contributions_sum_to_the_margin_and_name_the_signal(name: str) -> None:
    verifier = fitted(name)
    parts = verifier.contributions(fresh())
    assert parts.shape == (len(fresh()), len(verifier.columns))
    total = verifier.estimator.base + parts.sum(1)
    assert np.allclose(total, verifier.margin(fresh()), atol=1e-9)
    loudest = int(np.abs(parts).mean(0).argmax())
    assert verifier.columns[loudest] == SIGNAL
    wrong = fresh().wrong
    assert parts[wrong, loudest].mean() > 0 > parts[~wrong, loudest].mean()


@each_estimator
def test_flags_are_the_steps_at_or_above_the_threshold(name: str) -> None:
    verifier = fitted(name)
    flags, p = verifier.flags(fresh()), verifier.probability(fresh())
    assert 0 < verifier.threshold < 1
    assert np.array_equal(flags, p >= verifier.threshold)
    assert flags[fresh().wrong].mean() > 0.85
    assert flags[~fresh().wrong].mean() < 0.9


@each_estimator
def test_the_same_steps_and_seed_give_the_same_verifier(name: str) -> None:
    again = Verifier.fit(training(), fitted(name).settings, seed=4)
    assert np.array_equal(again.margin(fresh()), fitted(name).margin(fresh()))
    assert np.array_equal(again.interval(fresh()), fitted(name).interval(fresh()))
    assert again.threshold == fitted(name).threshold


@each_estimator
def test_labels_and_order_of_the_steps_judged_do_not_matter(name: str) -> None:
    verifier, steps = fitted(name), fresh()
    margin = verifier.margin(steps)
    flipped = steps.with_columns(wrong=~steps.wrong, weight=np.full(len(steps), 7.0))
    assert np.array_equal(verifier.margin(flipped), margin)
    order = np.random.default_rng(0).permutation(len(steps))
    assert np.array_equal(verifier.margin(steps.select(order)), margin[order])
    assert np.array_equal(
        verifier.probability(steps.select(np.array([5]))), verifier.probability(steps)[5:6]
    )
    nothing = steps.select(np.zeros(0, dtype=int))
    assert verifier.probability(nothing).shape == (0,)
    assert verifier.contributions(nothing).shape == (0, 4)


@each_estimator
def test_a_saved_one_gives_the_same_to_the_last_bit(name: str, tmp_path) -> None:
    verifier = fitted(name)
    verifier.save(tmp_path / "v")
    back = load_verifier(tmp_path / "v", model_fingerprint="model-a")
    for get in ("margin", "probability", "interval", "contributions", "flags"):
        assert np.array_equal(getattr(back, get)(fresh()), getattr(verifier, get)(fresh())), get
    assert back.threshold == verifier.threshold
    assert back.settings == verifier.settings
    assert back.columns == verifier.columns
    assert back.record == verifier.record
    assert back.conformal.statement() == verifier.conformal.statement()
    assert {f.name for f in (tmp_path / "v").iterdir()} == {"manifest.json", "verifier.safetensors"}


@each_estimator
def test_weights_are_heard(name: str) -> None:
    """Steps that stand for many: without signal the probability is their share by weight."""
    steps = training()
    heavy = steps.with_columns(weight=np.where(steps.wrong, 1.0, 9.0))
    choices = {"columns": (NOISE,), "estimator": name, "folds": 3, "refits": 0}
    shares = [Verifier.fit(each, **choices).probability(fresh()).mean() for each in (steps, heavy)]
    wrong = steps.wrong.mean()
    assert shares[0] == pytest.approx(wrong, abs=0.06)
    assert shares[1] == pytest.approx(wrong / (wrong + 9 * (1 - wrong)), abs=0.04)


@each_estimator
def test_as_a_method_it_scores_as_a_verifier_to_which_both_classes_weigh_the_same(
    name: str,
) -> None:
    method = ColumnsMethod(
        "graph", "graph", Settings(columns=COLUMNS, estimator=name, normalise="right")
    )
    with pytest.raises(ConfigError, match="graph has not been fitted"):
        method.score(fresh())
    method.fit(training(), seed=4)
    steps, wrong = training(), training().wrong
    even = steps.with_columns(weight=np.where(wrong, 0.5 / wrong.sum(), 0.5 / (~wrong).sum()))
    verifier = Verifier.fit(
        even, columns=COLUMNS, estimator=name, normalise="right", folds=3, refits=0, seed=4
    )
    scores, expected = method.score(fresh()), verifier.margin(fresh())
    assert np.allclose(scores, expected, atol=1e-6)


# What is refused, before anything is fitted


@pytest.fixture
def nothing_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was fitted")

    monkeypatch.setattr("pellucid.verification.verifier.fitting.Pipeline.fit", fail)


def few(count: int) -> StepSet:
    steps = training()
    return steps.with_columns(wrong=np.arange(len(steps)) < count)


@each_estimator
@pytest.mark.parametrize(
    ("steps", "error", "words"),
    [
        (
            lambda: training().select(np.zeros(0, dtype=int)),
            DataError,
            "no steps to learn from; collect",
        ),
        (lambda: few(0), DataError, r"0 of \d+ training steps are wrong; .* right and wrong"),
        (lambda: few(10_000), DataError, r"(\d+) of \1 training steps are wrong"),
        (lambda: few(7), DataError, r"only 7 of \d+ training steps are wrong; .* at least 10"),
        (
            lambda: training().with_columns(**{NOISE: np.full(len(training()), np.nan)}),
            DataError,
            rf"column '{NOISE}' is not finite in \d+ of \d+ steps \(first in row 0\)",
        ),
        (
            lambda: training().with_columns(weight=np.zeros(len(training()))),
            DataError,
            "weight of a training step is not above 0",
        ),
        (
            lambda: training().with_columns(**{NOISE: np.full(len(training()), "x")}),
            DataError,
            "holds no numbers",
        ),
        (
            lambda: few(12).with_columns(
                group=np.where(np.arange(len(training())) < 12, "q0", training().columns["group"])
            ),
            DataError,
            "cannot be split",
        ),
    ],
    ids=["empty", "all right", "all wrong", "few", "nan", "weight", "text", "one question"],
)
@pytest.mark.usefixtures("nothing_is_fitted")
def test_bad_training_steps_are_refused(name: str, steps, error, words: str) -> None:
    with pytest.raises(error, match=words):
        Verifier.fit(steps(), columns=COLUMNS, estimator=name)


@each_estimator
def test_steps_that_were_read_otherwise_are_refused(name: str) -> None:
    without = StepSet(columns={k: v for k, v in fresh().columns.items() if k != NOISE})
    with pytest.raises(DataError, match=f"collected without {NOISE}"):
        fitted(name).probability(without)
    holed = fresh().columns[SIGNAL].copy()
    holed[[3, 9]] = np.nan, np.inf
    with pytest.raises(DataError, match=rf"'{SIGNAL}' is not finite in 2 of .* row 3"):
        fitted(name).probability(fresh().with_columns(**{SIGNAL: holed}))
