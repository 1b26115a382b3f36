"""Trees, calibration, threshold and normaliser, each against an oracle of its own."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.core.files import sha256
from pellucid.verification.verifier import Settings, Verifier, cross_validate, load_verifier
from pellucid.verification.verifier.calibrate import CALIBRATORS, Isotonic, Platt
from pellucid.verification.verifier.conformal import conformal, questions_needed
from pellucid.verification.verifier.estimators import (
    GradientBoosting,
    HistogramBoosting,
    Logistic,
)
from pellucid.verification.verifier.estimators.trees import LEAF, Tree, Trees
from pellucid.verification.verifier.examples import Examples, chosen, training_examples
from pellucid.verification.verifier.normalise import CLIP, LENGTH_BINS, Normalise
from support.made_steps import NOISE, SIGNAL, made_steps


def examples(seed: int = 0, count: int = 300, columns: int = 5) -> Examples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, columns))
    x[:, 1] = np.round(x[:, 1])  # ties
    x[:, 2] = 3.0  # nothing to split
    x[:, 3] *= 1e6
    return Examples(
        x=x,
        tokens=rng.integers(3, 30, size=count).astype(float),
        domains=np.full(count, ""),
        wrong=rng.random(count) < 1 / (1 + np.exp(2 - x[:, 0] - x[:, 1] * x[:, 4])),
        groups=np.array([f"q{n}" for n in rng.integers(count // 3, size=count)]),
        weights=rng.integers(1, 4, size=count) / 2.0,
    )


# Trees


def test_boosted_trees_score_as_scikit_learn_does() -> None:
    learned, odd = examples(), examples(1, 200).x
    odd[:50] = learned.x[:50]  # at the very thresholds
    odd[50] = 1e30
    odd[51] = -1e30
    odd[52:] *= np.float64(1 + 1e-9)
    for kind, model in (
        (GradientBoosting, GradientBoostingClassifier(random_state=7)),
        (HistogramBoosting, HistGradientBoostingClassifier(early_stopping=False, random_state=7)),
    ):
        model.fit(learned.x, learned.wrong, sample_weight=learned.weights)
        ours = kind.fit(learned, seed=7)
        for x in (learned.x, odd):
            assert np.allclose(ours.margin(x), model.decision_function(x), rtol=0, atol=1e-12)


def test_trees_are_read_as_an_interpreter_of_one_step_would() -> None:
    learned = examples(2)
    trees = HistogramBoosting.fit(learned, seed=0).trees
    x = examples(3, 40).x
    for row, total, parts in zip(x, trees(x), trees.contributions(x), strict=True):
        value, said = trees.constant, np.zeros(trees.columns)
        for root in trees.roots:
            node = root
            while trees.feature[node] != LEAF:
                side = row[trees.feature[node]] <= trees.threshold[node]
                child = trees.left[node] if side else trees.right[node]
                said[trees.feature[node]] += trees.value[child] - trees.value[node]
                node = child
            value += trees.value[node]
        assert total == pytest.approx(value, abs=1e-12)
        assert parts == pytest.approx(said, abs=1e-12)


def test_a_stump_worked_by_hand() -> None:
    """Three steps go left to -1, one goes right to 3: the root's mean is 0."""
    stump = Tree(*map(np.array, ([1, LEAF, LEAF], [0.5, 0, 0], [1, 0, 0], [2, 0, 0], [9.0, -1, 3])),
                 cover=np.array([4.0, 3, 1]))  # fmt: skip
    trees = Trees.of([stump, stump], constant=0.25, columns=2, single=False)
    x = np.array([[0.0, 0.5], [0.0, 0.6]])
    assert trees(x).tolist() == [0.25 - 2, 0.25 + 6]
    assert trees.base == 0.25
    assert trees.contributions(x).tolist() == [[0, -2], [0, 6]]


def test_the_mean_margin_over_training_is_the_base() -> None:
    learned = examples(4)
    ours = GradientBoosting.fit(learned, seed=0)
    mean = learned.weights @ ours.margin(learned.x) / learned.weights.sum()
    assert mean == pytest.approx(ours.base, abs=1e-6)


@given(st.data())
def test_damaged_trees_are_refused_or_end(data: st.DataObject) -> None:
    """Whatever the arrays say, reading them raises ValueError or every walk ends."""
    arrays = dict(_SMALL)
    name = data.draw(st.sampled_from(sorted(arrays)))
    value = arrays[name].copy()
    place = data.draw(st.integers(0, len(value) - 1))
    options = [-5, -1, 0, 1, 2, 10**6]
    if value.dtype.kind == "f":
        options.append(np.nan)
    value[place] = data.draw(st.sampled_from(options))
    try:
        trees = Trees.from_arrays({**arrays, name: value})
    except ValueError:
        return
    if trees.columns < 100:
        assert np.isfinite(trees(np.zeros((2, trees.columns)))).all()


_SMALL = GradientBoosting.fit(examples(5, 60), seed=0).arrays()


# Logistic


def test_logistic_is_that_of_scikit_learn_on_standardised_columns() -> None:
    learned = examples(6)
    ours = Logistic.fit(learned, seed=0)
    w = learned.weights / learned.weights.sum()
    mean = w @ learned.x
    spread = np.sqrt(w @ (learned.x - mean) ** 2)
    spread[2] = 1.0
    share = w @ learned.wrong
    balance = np.where(learned.wrong, 0.5 / share, 0.5 / (1 - share))
    model = LogisticRegression(C=ours.penalty, max_iter=5000, tol=1e-8)
    model.fit((learned.x - mean) / spread, learned.wrong, sample_weight=w * balance * len(w))
    expected = model.decision_function((learned.x - mean) / spread)
    assert np.allclose(ours.margin(learned.x), expected, atol=2e-3)
    assert ours.coefficient[2] == 0


# Calibration


def drawn(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    margins = rng.normal(-1, 2, size=count)
    return margins, rng.random(count) < 1 / (1 + np.exp(-(0.5 * margins - 1)))


def test_platt_finds_the_line_that_made_the_labels() -> None:
    found = Platt.fit(*drawn(0, 20_000), np.ones(20_000))
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-1, abs=0.05)


def test_platt_stays_finite_where_the_classes_part() -> None:
    margins, wrong = np.array([-2.0, -1, 1, 2] * 5), np.array([False, False, True, True] * 5)
    p = Platt.fit(margins, wrong, np.ones(20))(margins)
    assert p[wrong].mean() == pytest.approx(11 / 12, abs=0.03)  # his target for ten positives
    assert ((p > 0) & (p < 1)).all()


def test_no_calibration_turns_the_order_round() -> None:
    margins, wrong = drawn(1)
    for name in CALIBRATORS:
        p = CALIBRATORS[name].fit(-margins, wrong, np.ones(len(wrong)))(-margins)
        assert np.ptp(p) < 1e-9 or name == "isotonic"
        assert (np.diff(p[np.argsort(-margins)]) >= 0).all()
        assert p.mean() == pytest.approx(wrong.mean(), abs=0.01)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibration_makes_a_pushed_margin_true(name: str) -> None:
    margins, wrong = drawn(2)
    found = CALIBRATORS[name].fit(margins[:2000], wrong[:2000], np.ones(2000))
    p, held = found(margins[2000:]), wrong[2000:]
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 1)):
        rows = (p >= low) & (p < high)
        assert p[rows].mean() == pytest.approx(held[rows].mean(), abs=0.06)
    again = type(found).from_arrays(found.arrays())
    assert np.array_equal(again(margins), found(margins))


def test_isotonic_agrees_with_pooling_by_hand() -> None:
    found = Isotonic.fit(
        np.array([1.0, 2, 3, 4]), np.array([False, True, False, True]), np.array([1.0, 1, 3, 1])
    )
    assert found(np.array([0, 1, 2, 3, 4, 9.0])).tolist() == [0, 0, 0.25, 0.25, 1, 1]


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        (Platt, {"line": np.array([-1.0, 0])}),
        (Platt, {"line": np.array([np.nan, 0])}),
        (Platt, {"line": np.array([1.0])}),
        (Isotonic, {"margins": np.zeros(0), "probabilities": np.zeros(0)}),
        (Isotonic, {"margins": np.array([1.0, 0]), "probabilities": np.array([0.0, 1])}),
        (Isotonic, {"margins": np.array([0.0, 1]), "probabilities": np.array([0.5, 1.5])}),
        (Isotonic, {"margins": np.array([0.0, 1]), "probabilities": np.array([0.5])}),
    ],
)
def test_damaged_calibrations_are_refused(kind, arrays) -> None:
    with pytest.raises(ValueError):
        kind.from_arrays(arrays)


# The threshold


def questions(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Wrong steps' margins, those of a question alike, and their questions."""
    sizes = rng.integers(1, 5, size=count)
    level = np.repeat(rng.normal(size=count), sizes)
    return level + 0.5 * rng.normal(size=len(level)), np.repeat(np.arange(count), sizes)


@pytest.mark.parametrize(("recall", "count"), [(0.9, 30), (0.8, 11), (0.95, 60)])
def test_new_questions_are_flagged_whole_as_often_as_promised(recall: float, count: int) -> None:
    flagged = []
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        margins, groups = questions(rng, count + 1)
        known = groups < count
        rule = conformal(
            margins[known], np.ones(known.sum(), bool), groups[known], np.ones(known.sum()),
            recall=recall, basis="held-out",
        )  # fmt: skip
        flagged.append((margins[~known] >= rule.margins[0]).all())
    share, error = np.mean(flagged), 3 * np.sqrt(recall * (1 - recall) / 1500)
    assert recall - error <= share <= recall + 1 / (count + 1) + error


def test_the_threshold_is_the_kth_lowest_of_the_questions_lowest() -> None:
    margins = np.array([5.0, 1, 2, 9, 3, 4, -7])
    groups = np.array(["a", "a", "b", "b", "c", "d", "e"])
    wrong = np.array([True] * 6 + [False])
    rule = conformal(margins, wrong, groups, np.ones(7), recall=0.6, basis="held-out")
    assert rule.questions.tolist() == [4]  # lowest: 1, 2, 3, 4; k = floor(5 * .4) = 2
    assert rule.margins.tolist() == [2]
    assert "at least 0.6" in rule.statement()


def test_too_few_questions_flag_everything_and_say_so() -> None:
    assert [questions_needed(r) for r in (0.5, 0.9, 0.95)] == [1, 9, 19]
    for count, flags_all in ((18, True), (19, False)):
        rule = conformal(
            np.arange(count) * 1.0, np.ones(count, bool), np.arange(count), np.ones(count),
            recall=0.95, basis="out-of-fold",
        )  # fmt: skip
        assert np.isneginf(rule.margins[0]) == flags_all
        record = json.loads(json.dumps(rule.to_json(), allow_nan=False))
        assert record["questions_needed"] == 19
        assert ("18 questions with wrong steps promise no recall" in rule.statement()) == flags_all
        assert ("about 0.95" in rule.statement()) != flags_all


def test_strata_of_length_each_keep_the_promise() -> None:
    """Short wrong steps score low: one threshold misses them, one a stratum does not."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 21, size=4000).astype(float)
    margins = rng.normal(size=4000) + np.where(tokens < 6, 0, 3)
    groups, wrong = np.arange(4000), np.ones(4000, bool)
    for strata, low in ((1, False), (4, True)):
        rule = conformal(
            margins[:2000], wrong[:2000], groups[:2000], tokens[:2000],
            recall=0.9, strata=strata, basis="held-out",
        )  # fmt: skip
        short = tokens[2000:] < 6
        found = (margins[2000:] >= rule.at(tokens[2000:]))[short].mean()
        assert (found > 0.86) == low
    assert len(rule.margins) == 4
    assert "in each stratum" in rule.statement()


# The normaliser


def test_right_steps_have_median_zero_and_unit_spread() -> None:
    learned = examples(8, 3000)
    found = Normalise.fit(learned)(learned.x, learned.tokens, learned.domains)
    right = found[~learned.wrong]
    assert np.abs(np.median(right, axis=0)).max() < 0.1
    assert np.std(right[:, 0]) == pytest.approx(1, abs=0.1)
    assert np.std(right[:, 3]) == pytest.approx(1, abs=0.1)
    assert (found[:, 2] == 0).all()
    wild = Normalise.fit(learned)(learned.x * 1e9, learned.tokens, learned.domains)
    assert np.abs(wild).max() == CLIP


def test_wrong_steps_do_not_move_the_statistics() -> None:
    learned = examples(9)
    x = learned.x.copy()
    x[learned.wrong] += 1e3
    for one, other in zip(
        *(
            (found.center, found.spread)
            for found in (Normalise.fit(learned), Normalise.fit(learned.with_x(x)))
        ),
        strict=True,
    ):
        assert np.array_equal(one, other)


def test_what_only_length_decides_disappears() -> None:
    learned = examples(10, 2000)
    rng = np.random.default_rng(0)
    x = learned.tokens[:, None] * 10 + rng.normal(size=(2000, 1))
    learned = learned.with_x(x)
    found = Normalise.fit(learned, by_length=True)
    assert found.center.shape == (1, LENGTH_BINS, 1)
    z = found(learned.x, learned.tokens, learned.domains)[:, 0]
    right, bins = ~learned.wrong, np.searchsorted(found.edges, learned.tokens, side="right")
    middles = [np.median(z[right & (bins == number)]) for number in range(LENGTH_BINS)]
    assert np.abs(middles).max() < 0.15
    assert np.corrcoef(z[right], learned.tokens[right])[0, 1] < 0.5


def domains(seed: int = 0) -> Examples:
    """Two domains whose readings have other origins and units; the first column tells in both."""
    learned = examples(seed, 1200)
    names = np.where(np.arange(1200) < 600, "a", "b")
    x = learned.x.copy()
    x[600:] = x[600:] * 50 + 400
    parts = {name: getattr(learned, name) for name in Examples.__slots__}
    return Examples(**{**parts, "x": x, "domains": names})


def test_domains_are_measured_by_their_own_right_steps() -> None:
    learned = domains()
    found = Normalise.fit(learned)
    assert found.domains == ("", "a", "b")
    z = found(learned.x, learned.tokens, learned.domains)
    right = ~learned.wrong
    for rows in (slice(0, 600), slice(600, 1200)):
        assert abs(np.median(z[rows][right[rows]][:, 0])) < 0.1
    stranger = found(learned.x, learned.tokens, np.full(1200, "c"))
    assert not np.allclose(stranger, z)


def test_a_normaliser_adapts_to_a_domain_without_its_labels() -> None:
    learned = domains()
    first, second = learned.select(np.arange(600)), learned.select(np.arange(600, 1200))
    adapted = Normalise.fit(first).adapted(second)
    z = adapted(second.x, second.tokens, second.domains)
    assert abs(np.median(z[:, 0])) < 0.1
    flipped = Examples(
        **{n: getattr(second, n) for n in Examples.__slots__ if n != "wrong"}, wrong=~second.wrong
    )
    assert np.array_equal(Normalise.fit(first).adapted(flipped).center, adapted.center)
    old = Normalise.fit(first)
    assert np.array_equal(
        old(first.x, first.tokens, first.domains), adapted(first.x, first.tokens, first.domains)
    )


# Columns


def test_columns_are_chosen_by_name_and_prefix() -> None:
    steps = made_steps(20)
    assert chosen(steps, ("tokens", "graph.answer.no", "free.")) == (
        "tokens", NOISE, "free.doubt",
    )  # fmt: skip
    assert chosen(steps, ("graph.", SIGNAL)) == tuple(steps.named("graph."))
    assert chosen(steps, ("number",)) == ("number",)
    for want in ("wrong", "error", "wrong_so_far", "weight", "group", "source"):
        with pytest.raises(ConfigError, match=f"column '{want}' is a label"):
            chosen(steps, (want,))
    with pytest.raises(DataError, match=r"begins so; these steps have free\., graph\."):
        chosen(steps, ("graf.",))
    for none in ("w", ""):
        with pytest.raises(DataError, match="begins so"):
            chosen(steps, (none,))
    with pytest.raises(ConfigError, match="no columns were chosen"):
        chosen(steps, ())


# Settings, saved verifiers


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"estimator": "forest"}, "unknown estimator 'forest'; use one of boosting"),
        ({"calibration": "beta"}, "unknown calibration 'beta'; use one of platt, isotonic"),
        ({"normalise": "mean"}, "normalise is 'mean'; use one of none, right, length"),
        ({"within": "language"}, "nothing is normalised"),
        ({"recall": 1.0}, r"recall is 1\.0; give a share between 0 and 1"),
        ({"recall": 0}, "recall is 0"),
        ({"folds": 1}, "folds is 1; give at least 2"),
        ({"strata": 0}, "strata is 0"),
        ({"refits": 1}, "refits is 1, which has no spread"),
    ],
)
def test_settings_out_of_range_are_refused(choices, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings(**choices)


def quick(steps, **choices) -> Verifier:
    settings = Settings(columns=("graph.",), estimator="logistic", folds=3, refits=0)
    return Verifier.fit(steps, settings, **choices)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("verifiers") / "v"
    quick(made_steps(80), estimator="histogram", normalise="length", strata=2).save(folder)
    return folder


def copied(saved, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_verifier_of_another_model_is_refused(saved) -> None:
    with pytest.raises(
        CheckpointError, match=r"of another model .*model-a, this one's is model-b.*use that model"
    ):
        load_verifier(saved, model_fingerprint="model-b")
    assert load_verifier(saved, model_fingerprint="model-b", any_model=True).record["models"]
    assert load_verifier(saved).normalise is not None
    with pytest.raises(ConfigError, match="one threshold a stratum"):
        _ = load_verifier(saved).threshold


def test_steps_of_several_models_make_a_verifier_of_all(tmp_path) -> None:
    steps = made_steps(60)
    both = type(steps)(columns=steps.columns, record={"models": ["a", "b"]})
    quick(both).save(tmp_path / "v")
    for name in ("a", "b"):
        load_verifier(tmp_path / "v", model_fingerprint=name)
    with pytest.raises(CheckpointError, match="a, b"):
        load_verifier(tmp_path / "v", model_fingerprint="c")


def test_a_damaged_file_is_refused(saved, tmp_path) -> None:
    folder = copied(saved, tmp_path)
    file = folder / "verifier.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        load_verifier(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_verifier(folder)
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        load_verifier(tmp_path)


def _set(path: tuple, value):
    def change(manifest) -> None:
        *way, last = path
        for key in way:
            manifest = manifest[key]
        if value is None:
            del manifest[last]
        else:
            manifest[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set(("config", "settings", "estimator"), "logistic"),
        _set(("config", "settings", "estimator"), "nonsense"),
        _set(("config", "settings", "surprise"), 1),
        _set(("config", "settings", "refits"), 2),
        _set(("config", "columns"), ["one"]),
        _set(("config", "columns"), None),
        _set(("config", "domains"), None),
        _set(("config", "record"), None),
        _set(("config", "record"), {}),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(saved, tmp_path, change) -> None:
    folder = copied(saved, tmp_path)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    del manifest["checksum"]  # as manifests before it had one
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_verifier(folder, model_fingerprint="model-a")


@pytest.mark.parametrize("name", ["estimator/left", "estimator/feature", "normalise/center"])
def test_arrays_that_do_not_fit_are_refused(saved, tmp_path, name) -> None:
    """Even with a checksum that fits: what was altered cannot send a walk round in circles."""
    from safetensors.numpy import load_file, save_file

    folder = copied(saved, tmp_path)
    file, path = folder / "verifier.safetensors", folder / "manifest.json"
    arrays = load_file(file)
    arrays[name] = arrays[name][:, :, :1] if name.startswith("n") else arrays[name] * 0
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, file)
    manifest = json.loads(path.read_text())
    manifest["files"][file.name] = sha256(file)
    del manifest["checksum"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="does not hold a verifier"):
        load_verifier(folder)


# Verifiers as a whole


def test_recalibration_needs_new_questions_and_then_promises_outright() -> None:
    verifier = quick(made_steps(80))
    assert "about 0.95" in verifier.conformal.statement()
    with pytest.raises(DataError, match="steps are of questions that the verifier was fitted on"):
        verifier.recalibrated(made_steps(80).select(np.arange(40)))
    moved = made_steps(200, seed=3, rate=0.5)
    again = verifier.recalibrated(moved, recall=0.8)
    assert "at least 0.8" in again.conformal.statement()
    assert again.settings.recall == 0.8
    assert np.array_equal(again.margin(moved), verifier.margin(moved))
    assert again.probability(moved).mean() == pytest.approx(0.5, abs=0.05)
    assert verifier.probability(moved).mean() < 0.4
    with pytest.raises(ConfigError, match="recall is 0"):
        verifier.recalibrated(moved, recall=0.0)


def test_adapting_mends_a_shift_between_domains() -> None:
    verifier = quick(made_steps(120), normalise="right")
    other = made_steps(150, seed=5)
    shifted = other.with_columns(**{SIGNAL: other.columns[SIGNAL] * 30 + 500})
    plain = verifier.margin(other)
    adapted = verifier.adapted(shifted).margin(shifted)
    assert np.corrcoef(verifier.margin(shifted), plain)[0, 1] < 0.5  # all clipped
    assert np.corrcoef(adapted, plain)[0, 1] > 0.97
    with pytest.raises(ConfigError, match="takes readings as they are"):
        quick(made_steps(80)).adapted(shifted)


def test_a_verifier_without_refits_has_no_interval() -> None:
    steps = made_steps(80)
    with pytest.raises(ConfigError, match="no intervals; fit it with `refits`"):
        quick(steps).interval(steps)


def test_intervals_are_wider_with_fewer_questions() -> None:
    widths = []
    for count in (60, 500):
        verifier = quick(made_steps(count, seed=7), refits=6)
        ends = verifier.interval(made_steps(100, seed=8))
        widths.append(float((ends[:, 1] - ends[:, 0]).mean()))
    assert widths[0] > 1.5 * widths[1]


def test_what_was_seen_in_training_is_kept_for_cheaper_tests() -> None:
    steps = made_steps(80)
    kept = quick(steps).training
    assert set(kept) == {"margin", "wrong", "group", "weight", "free.doubt"}
    assert np.array_equal(kept["free.doubt"], steps.columns["free.doubt"])
    assert len(np.unique(kept["group"])) == 80


def test_cross_validation_judges_every_step_without_its_question() -> None:
    steps = made_steps(100)
    settings = Settings(columns=("graph.",), estimator="logistic", folds=4)
    crossed = cross_validate(steps, settings, seed=3)
    parts = training_examples(steps, steps.named("graph.")).folds(4, 3)
    train, test = parts[2]
    assert set(np.flatnonzero(crossed.fold == 2)) == set(test)
    alone = quick(steps.select(train), folds=4, seed=3)
    assert np.array_equal(crossed.probability[test], alone.probability(steps.select(test)))
    groups = steps.columns["group"]
    assert not set(groups[train]) & set(groups[test])
    record = crossed.trust()
    assert record["threshold"]["questions"]["trials"] == len(set(groups[steps.wrong]))
    assert 0 < record["ece"]["value"] < 0.15
    json.dumps(record, allow_nan=False)
