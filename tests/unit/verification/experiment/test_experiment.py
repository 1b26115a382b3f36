"""The experiment on made-up steps: what is learned from what, what is kept, what is measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.verification.experiment.measure import measure
from pellucid.verification.experiment.regimes import REGIMES, TASKS, Fold, Regime, regime
from pellucid.verification.experiment.report import leading, markdown, picture
from pellucid.verification.experiment.score import parts, score_parts
from pellucid.verification.methods.method import Method
from pellucid.verification.methods.stacked import Stacked
from pellucid.verification.steps.step_set import StepSet
from support.step_sets import synthetic_steps

LEFT = ("a", "b", "c")


def made(name: str, seed: int, count: int = 240, **options: object) -> StepSet:
    steps = synthetic_steps(count, planted=("confidence",), seed=seed, **options)  # type: ignore[arg-type]
    columns = {**steps.columns, "source": np.array([name] * count)}
    return replace(steps, columns=columns, record={"model": name})


STEPS = {name: made(name, seed) for seed, name in enumerate(LEFT)}
LEAVE_ONE_OUT = Regime(
    task="arithmetic",
    name="planted",
    collections=(),
    folds=tuple(
        Fold(name=left, train=tuple(n for n in LEFT if n != left), test=(left,)) for left in LEFT
    ),
)
WITHIN = Regime(
    task="arithmetic",
    name="in",
    collections=(),
    folds=(Fold(name="a", train=("a",), test=("a",)),),
)


class Told(Method):
    """Scores a step by its label, or by chance; counts how often it was fitted."""

    fits = 0

    def __init__(self, name: str, share: float) -> None:
        self.name, self.rung, self.share = name, "graph", share

    def fit(self, steps: StepSet, *, seed: int) -> None:
        Told.fits += 1
        self.seed = seed

    def score(self, steps: StepSet) -> np.ndarray:
        noise = np.random.default_rng(self.seed).normal(size=len(steps))
        return self.share * steps.wrong + (1 - self.share) * noise


MAKE = {
    "truth": lambda: Told("truth", 1.0),
    "chance": lambda: Told("chance", 0.0),
    "again": lambda: Told("again", 0.0),
}


@pytest.mark.parametrize("made_of", [WITHIN, LEAVE_ONE_OUT])
def test_no_question_and_no_left_out_source_is_learned_from(made_of: Regime) -> None:
    found = list(parts(made_of, STEPS, range(4)))
    assert len(found) == 4 * len(made_of.folds)
    for part in found:
        groups = [set(each.columns["group"].tolist()) for each in (part.train, part.test)]
        assert not groups[0] & groups[1]
        if made_of is LEAVE_ONE_OUT:
            assert part.fold not in part.train.columns["source"].tolist()
            assert set(part.test.columns["source"].tolist()) == {part.fold}
    assert len({tuple(part.train.columns["group"].tolist()) for part in found}) == len(found)


@pytest.mark.parametrize("task", TASKS)
def test_the_rule_that_is_tested_is_in_no_collection_that_is_trained_on(task: str) -> None:
    planted = regime(task, "planted")
    assert len(planted.folds) >= 4
    for fold in planted.folds:
        assert not set(fold.train) & set(fold.test)
    across = regime(task, "transfer")
    for fold in across.folds:
        assert not any(name.startswith(task) for name in fold.train)
    for name in REGIMES:
        sources = {each.questions.seed for each in regime(task, name).collections}
        assert len(sources) == len({each.name for each in regime(task, name).collections}) or (
            name == "transfer"
        )


def test_scores_are_kept_and_a_run_goes_on(tmp_path: Path) -> None:
    found = list(parts(WITHIN, STEPS, range(2)))
    Told.fits = 0

    def killed(name: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_parts(found, MAKE, tmp_path, {"steps": 1}, killed)
    assert Told.fits == 4
    again = list(parts(WITHIN, STEPS, range(2)))
    score_parts(again, MAKE, tmp_path, {"steps": 1})
    assert Told.fits == len(again) * len(MAKE)
    assert all(np.array_equal(part.scores["truth"], part.test.wrong) for part in again)
    with pytest.raises(CheckpointError):
        score_parts(again, MAKE, tmp_path, {"steps": 2})
    kept = tmp_path / "a" / "0" / "truth.npy"
    np.save(kept, np.zeros(3))
    with pytest.raises(CheckpointError, match=r"truth.npy has 3 scores for .* delete it"):
        score_parts(again, MAKE, tmp_path, {"steps": 1})


def test_figures_of_the_truth_of_chance_and_of_a_method_beside_itself(tmp_path: Path) -> None:
    found = list(parts(LEAVE_ONE_OUT, STEPS, range(2)))
    names = {"graph": MAKE["truth"], "crv": MAKE["chance"], "length": MAKE["again"]}
    score_parts(found, names, tmp_path, {})
    record = measure(found, {"graph": "graph", "crv": "graph", "length": "length"}, bootstraps=200)
    rows = record["methods"]
    assert rows["graph"]["auroc"] == 1.0 and rows["graph"]["fpr95"] == 0.0
    assert rows["crv"]["low"] < 0.5 < rows["crv"]["high"]
    assert rows["crv"]["auroc"] == rows["length"]["auroc"]
    assert record["best_baseline"] == "length" and record["ladder"]["graph"] == "graph"
    beyond = record["differences"]["graph - best baseline"]["auroc"]
    assert beyond["value"] == pytest.approx(1 - rows["length"]["auroc"])
    assert record["differences"]["graph - crv"]["auroc"] == beyond
    assert set(record["folds"]) == set(LEFT)
    record |= {"task": "arithmetic", "regime": "planted", "seconds_per_step": 0.1}
    page = markdown(record | {"collections": {}})
    assert "| graph | graph | 1.000 (1.000 to 1.000) |" in page
    assert leading(record)[0] == "graph"
    shown = picture(record).axes[0]
    assert [label.get_text() for label in shown.get_yticklabels()][-1] == "graph (graph)"


def test_a_stack_over_sources_trusts_what_carries_over() -> None:
    """In every source a method is right about its own steps alone; the other is right anywhere."""

    class Anywhere(Told):
        def score(self, steps: StepSet) -> np.ndarray:
            noise = np.random.default_rng(5).normal(size=len(steps))
            return steps.wrong + 0.7 * noise

    class AtHome(Told):
        def fit(self, steps: StepSet, *, seed: int) -> None:
            self.known = set(steps.columns["source"].tolist())

        def score(self, steps: StepSet) -> np.ndarray:
            home = np.array([each in self.known for each in steps.columns["source"].tolist()])
            noise = np.random.default_rng(6).normal(size=len(steps))
            return np.where(home, steps.wrong + 0.1 * noise, noise)

    [part] = [each for each in parts(LEAVE_ONE_OUT, STEPS, [0]) if each.fold == "c"]
    stack = Stacked("both", "graph", [lambda: Anywhere("x", 1.0), lambda: AtHome("y", 1.0)])
    stack.fit(part.train, seed=0)
    wrong = part.test.wrong
    alone = Anywhere("x", 1.0)

    def separation(scores: np.ndarray) -> float:
        return float((scores[wrong][:, None] > scores[~wrong][None]).mean())

    assert separation(stack.score(part.test)) > separation(alone.score(part.test)) - 0.02


def test_bad_steps_and_names_are_one_clear_error(tmp_path: Path) -> None:
    right = replace(
        STEPS["a"], columns={**STEPS["a"].columns, "wrong": np.zeros(len(STEPS["a"]), bool)}
    )
    with pytest.raises(DataError):
        list(parts(WITHIN, {"a": right}, [0]))
    few = made("a", 1, count=40, share=0.05)
    with pytest.raises(DataError):
        for part in parts(WITHIN, {"a": few}, [0]):
            score_parts([part], {"s": lambda: Stacked("s", "graph", ())}, tmp_path, {})
    with pytest.raises(ConfigError, match="no regime 'hard' of task 'arithmetic'"):
        regime("arithmetic", "hard")
