"""What every baseline must do, whatever it reads."""

from functools import cache

import numpy as np
import pytest

from pellucid.core.errors import ConfigError, DataError
from pellucid.probes.metrics import auroc
from pellucid.verification.methods import boosting, networks
from pellucid.verification.methods.method import Method
from pellucid.verification.methods.registry import METHODS, WITHOUT_GRAPH
from pellucid.verification.steps.step_set import StepSet
from support.step_sets import synthetic_steps

NAMES = list(METHODS)
TRAIN, TEST, FEW = 240, 320, 20
RUNGS = frozenset(METHODS[name].rung for name in NAMES) - {"combined"}


@cache
def steps(planted: frozenset[str], count: int, seed: int, share: float = 0.3) -> StepSet:
    return synthetic_steps(count, planted=planted, seed=seed, share=share)


NOISE = steps(frozenset(), TRAIN, seed=1)


def own(name: str) -> frozenset[str]:
    """The rungs whose readings a method reads."""
    if METHODS[name].rung == "combined":
        return frozenset(METHODS[each].rung for each in WITHOUT_GRAPH)
    return frozenset({METHODS[name].rung})


@cache
def learned(name: str) -> Method:
    method = METHODS[name].make()
    method.fit(steps(own(name), TRAIN, seed=1), seed=0)
    return method


def area(method: Method, on: StepSet) -> float:
    return auroc(method.score(on), on.wrong)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees and epochs than a real set needs."""
    monkeypatch.setattr(boosting, "TREES", 40)
    monkeypatch.setattr(networks, "EPOCHS", 20)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_registry_says(name: str) -> None:
    method = METHODS[name].make()
    assert (method.name, method.rung) == (name, METHODS[name].rung)
    assert METHODS[name].make() is not method


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_signal_in_what_it_reads(name: str) -> None:
    assert area(learned(name), steps(own(name), TEST, seed=2)) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_it_finds_nothing_in_noise_and_reads_nothing_but_its_rung(name: str) -> None:
    """The signal is in every other rung's readings (not the length, which most can tell)."""
    elsewhere = RUNGS - own(name) - {"length"}
    method = METHODS[name].make()
    method.fit(steps(elsewhere, TRAIN, seed=1), seed=0)
    assert abs(area(method, steps(elsewhere, TEST, seed=2)) - 0.5) < 0.12


@pytest.mark.parametrize("name", NAMES)
def test_twenty_wrong_steps_are_enough_and_a_seed_decides(name: str) -> None:
    few = steps(own(name), 8 * FEW, seed=3, share=1 / 8)
    assert few.wrong.sum() == FEW
    test = steps(own(name), TEST, seed=2)
    scores = []
    for _ in range(2):
        np.random.seed(len(scores))  # the global state must not matter
        method = METHODS[name].make()
        method.fit(few, seed=5)
        scores.append(method.score(test))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.isfinite(scores[0]).all()
    assert auroc(scores[0], test.wrong) > 0.75


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_of_one_step_alone_and_never_of_its_labels(name: str) -> None:
    method, test = learned(name), steps(own(name), TEST, seed=2)
    scores = method.score(test)
    assert scores.shape == (TEST,)
    rows = np.array([7, 3, 200])
    np.testing.assert_allclose(method.score(test.select(rows)), scores[rows], rtol=1e-4, atol=1e-5)
    turned = test.with_columns(
        wrong=~test.wrong,
        wrong_so_far=~test.wrong,
        first_error=~test.wrong,
        error=np.array(["x"] * TEST),
        group=np.array(["one"] * TEST),
        weight=np.full(TEST, 9.0),
    )
    np.testing.assert_array_equal(method.score(turned), scores)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [0, 4, TRAIN])
def test_one_class_or_too_few_of_one_is_one_clear_error(name: str, wrong: int) -> None:
    train = NOISE.with_columns(wrong=np.arange(TRAIN) < wrong)
    with pytest.raises(DataError, match=rf"^{wrong} of {TRAIN} training steps are wrong.*collect"):
        METHODS[name].make().fit(train, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_readings_that_are_missing_are_named(name: str) -> None:
    whole = NOISE
    labels = {n: v for n, v in whole.columns.items() if not n.startswith(("free.", "error_norm."))}
    bare = StepSet(columns=labels)
    if METHODS[name].rung in ("length", "text"):
        METHODS[name].make().fit(bare, seed=0)
        return
    with pytest.raises(DataError, match=r"these steps were collected without .*collect them again"):
        METHODS[name].make().fit(bare, seed=0)
    with pytest.raises(DataError, match="these steps were collected without"):
        learned(name).score(bare)


@pytest.mark.parametrize("name", NAMES)
def test_it_must_be_fitted_first(name: str) -> None:
    with pytest.raises(ConfigError, match="has not been fitted"):
        METHODS[name].make().score(NOISE)


def test_an_unknown_method_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'magic'; use one of length"):
        METHODS["magic"]
