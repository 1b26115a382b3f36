"""The rules of the verdict, on invented answers."""

import numpy as np
import pytest

from pellucid.introspection.arms import ABOUT_ARMS, FACTUAL_ARMS, OPEN_ARMS, ArmResult
from pellucid.introspection.choices import Choice
from pellucid.introspection.criteria import contrast, findings_of, judge_criteria, verdict_of
from pellucid.introspection.judges import Judgement
from pellucid.introspection.report import escaped
from pellucid.introspection.statistics import rate_of

WORDS = tuple(f"word{number}" for number in range(20))
YES_RIGHT = {"factual_yes_none", "factual_yes_concept", "factual_yes_random"}


def arm(name, *, yes=0.0, named=None, gap=0.0, answered="no", rng=None):
    """An arm whose trials affirm with a chance; `named` maps a concept to the name given."""
    rng = rng or np.random.default_rng(len(name))
    rows = []
    for word in WORDS:
        row = []
        for _ in range(4):
            if rng.random() < yes:
                row.append(Judgement(answered="yes", named=named(word) if named else None))
            else:
                row.append(Judgement(answered=answered))
        rows.append(tuple(row))
    gaps = gap + rng.normal(size=(len(WORDS), 4)) * 0.1
    return ArmResult(name=name, words=WORDS, judged=tuple(rows), gaps=gaps)


def arms(**said):
    names = (*OPEN_ARMS, *ABOUT_ARMS, *FACTUAL_ARMS)
    base = {name: {"yes": 1.0} if name in YES_RIGHT else {} for name in names}
    return {name: arm(name, **(base[name] | said.get(name, {}))) for name in names}


def choices(right=1.0, form=1.0):
    hits = (np.random.default_rng(0).random((20, 4)) < right).astype(float)
    return {
        task: Choice(task=task, rate=rate_of(hits), chance=chance, in_form=form)
        for task, chance in (("localisation", 0.25), ("comparison", 0.5))
    }


def outcome(made, chosen):
    contrasts = contrast(made, bootstraps=300, seed=0)
    criteria = judge_criteria(made, contrasts, chosen)
    states = {name: each.state for name, each in criteria.items()}
    return verdict_of(criteria), states, findings_of(contrasts), contrasts


def reporting(**more):
    own = {
        "concept": {"yes": 0.8, "named": lambda word: word, "gap": 5},
        "before_query": {"yes": 0.7, "named": lambda word: word},
        "about_match": {"yes": 0.9},
        "about_mismatch": {"yes": 0.1},
    }
    return arms(**(own | more))


def test_a_model_that_reports_meets_every_criterion():
    verdict, states, findings, _ = outcome(reporting(), choices())
    assert verdict == "evidence"
    assert set(states.values()) == {"met"}
    assert findings == []


def test_a_model_that_says_yes_to_everything_is_unmasked():
    always = {"yes": 1.0, "named": lambda word: "word3", "gap": 5}
    perturbed = dict.fromkeys(
        [n for n in (*OPEN_ARMS, *ABOUT_ARMS, *FACTUAL_ARMS) if not n.endswith("none")],
        always,
    )
    verdict, states, findings, contrasts = outcome(arms(**perturbed), choices(right=0.1, form=0.0))
    assert verdict == "no evidence"
    assert "met" not in states.values()
    assert contrasts.nets["net"].includes_zero
    assert contrasts.nets["detection_none"].above_zero
    assert findings[0].startswith("yes bias")
    assert any("'word3'" in finding for finding in findings)


def test_a_silent_model_shows_nothing():
    verdict, states, findings, _ = outcome(arms(), choices(right=0.25))
    assert (verdict, findings) == ("no evidence", [])
    assert "met" not in states.values()


@pytest.mark.parametrize("control", ["none", "random", "shuffled"])
def test_one_control_arm_that_affirms_as_often_is_enough_against_it(control):
    verdict, states, _, _ = outcome(reporting(**{control: {"yes": 0.8}}), choices())
    assert (verdict, states["accuracy"]) == ("no evidence", "not met")


def test_steered_speech_without_internality_is_no_evidence():
    verdict, states, _, _ = outcome(reporting(before_query={}), choices())
    assert (verdict, states["internality"]) == ("no evidence", "not met")


def test_a_shift_that_factual_questions_share_is_not_metacognitive():
    shared = {"factual_concept": {"gap": 5}}
    _, states, _, _ = outcome(reporting(**shared), choices())
    assert states["metacognitive"] == "not met"


def test_damage_is_told_from_a_yes_bias():
    spoiled = {"factual_random": {"yes": 0.5}, "factual_yes_random": {"yes": 0.5}}
    _, _, findings, contrasts = outcome(reporting(**spoiled), choices())
    assert contrasts.nets["yes_to_facts_random"].includes_zero
    assert findings[0].startswith("a random vector of this strength spoils factual answers")


def test_answers_out_of_form_cannot_be_measured():
    unclear = {"none": {"answered": "unclear"}}
    verdict, states, _, _ = outcome(reporting(**unclear), choices())
    assert verdict == "no evidence"
    assert states["accuracy"] == "not measurable"


def test_text_of_models_is_escaped():
    assert escaped("<b>|x|</b>\n# y") == "&lt;b&gt;\\|x\\|&lt;/b&gt; # y"
