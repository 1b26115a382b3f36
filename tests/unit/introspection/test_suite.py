"""The suite on the specimen and its organisms, small."""

import json

import pytest

import pellucid
from pellucid.core.errors import ConfigError
from pellucid.introspection.judges import ExactJudge
from pellucid.introspection.organisms.recipe import RECIPES, taught_concepts
from pellucid.introspection.report import markdown, summary
from pellucid.introspection.suite import Settings, introspect
from pellucid.introspection.wording import read_wording

WORDING = read_wording("specimen")
TAUGHT = [WORDING.concepts[n] for n in taught_concepts(RECIPES["reporter"], len(WORDING.concepts))]
SMALL = Settings(layers=(1,), strengths=(2.0,), trials=21, temperature=0.0, bootstraps=300)


def report_on(source, judge):
    model = pellucid.load_model(source, check=False)
    return introspect(model, WORDING, judge, settings=SMALL, concepts=TAUGHT[:28])


@pytest.fixture(scope="module")
def reporter():
    return report_on("specimen:reporter", ExactJudge(WORDING))


def test_the_reporter_passes(reporter):
    """Its verdict with enough trials is checked in tests/docs/test_introspection.py."""
    for name in ("accuracy", "internality", "metacognitive"):
        assert reporter.criteria[name].state == "met"
    assert reporter.arms["concept"]["identified"]["rate"] > 0.7
    assert reporter.arms["random"]["rate"] < 0.2
    assert reporter.contrasts["nets"]["net"]["low"] > 0.5


def test_the_yes_biased_organism_is_unmasked():
    report = report_on("specimen:yes-bias", ExactJudge(WORDING))
    net = report.contrasts["nets"]["net"]
    assert report.verdict == "no evidence"
    assert net["low"] <= 0 <= net["high"]
    assert any(finding.startswith("yes bias") for finding in report.findings)


def test_the_plain_specimen_shows_no_evidence_in_logits_either():
    report = report_on("specimen", None)
    assert report.verdict == "no evidence"
    assert report.provenance["judge"] == {"name": "logits"}


def test_a_report_says_what_was_run_and_reads_the_same_twice(reporter):
    record = json.loads(json.dumps(reporter.to_json(), allow_nan=False))
    assert record["cell"]["layer"] == 1
    assert record["arms"]["concept"]["n"] == 21
    assert record["receipt"]["tokens_edited"] > 1000
    again = report_on("specimen:reporter", ExactJudge(WORDING))
    assert again.to_json() == reporter.to_json()


def test_words_are_of_behaviour(reporter):
    page = markdown(reporter) + " ".join(summary(reporter))
    assert not {"feels", "felt", "notices", "noticed", "aware", "conscious"} & set(
        page.lower().split()
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layers": (4,)}, r"layers \(4,\) are not all in specimen; use 0 to 3"),
        ({"strengths": (0.0,)}, r"strengths are \(0.0,\)"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"trials": 0}, "trials is 0"),
        ({"selection_share": 1.0}, "selection_share is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        introspect(
            pellucid.load_model("specimen", check=False), WORDING, None, settings=Settings(**change)
        )


def test_concepts_must_be_the_wordings_own():
    model = pellucid.load_model("specimen", check=False)
    with pytest.raises(ConfigError, match="'unicorn' is no concept"):
        introspect(model, WORDING, None, settings=SMALL, concepts=["unicorn"])
    with pytest.raises(ConfigError, match="there are 1 concepts; give at least 4"):
        introspect(model, WORDING, None, settings=SMALL, concepts=["dog"])
