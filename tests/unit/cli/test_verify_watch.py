"""`pellucid verify watch`: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import pytest

import pellucid as package
from pellucid.verification.reading.reader import ReaderSettings
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier
from support.noisy_steps import noisy_steps

QUESTION = "( ( 3 + 4 ) * ( 2 - 5 ) ) ="


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    read = ReaderSettings(targets=("answer",), max_features=24, tokens=False)
    model, dictionaries = package.load_model("specimen"), package.load_dictionaries("specimen")
    steps = noisy_steps(model, dictionaries, QUESTION, read)
    settings = Settings(
        columns=("free.answer.", "graph.answer."), estimator="logistic", folds=2, refits=2
    )
    return Verifier.fit(steps, settings).save(tmp_path_factory.mktemp("verifiers") / "v")


def test_steps_as_json_and_as_a_page(pellucid, verifier, tmp_path):
    page = tmp_path / "chain.html"
    arguments = ("--verifier", str(verifier), "--no-band", "--threshold", "0.0001", "--json")
    done = pellucid("verify", "watch", "specimen", QUESTION, *arguments, "--html", str(page))
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [step["text"] for step in record["steps"]] == ["( 7 * ( 2 - 5 ) )", "( 7 * -3 )", "-21"]
    assert record["flagged"] == [0, 1, 2] and record["graphed_share"] == 1
    assert record["files"] == {"html": str(page)} and record["band"] is None
    assert any(step["accused"] for step in record["steps"])
    assert {"seconds_per_step", "seconds", "promise", "prompt"} <= set(record)
    assert page.read_text(encoding="utf-8").count("<script") == 2


def test_steps_are_plain_when_piped_and_stop_where_asked(pellucid, verifier):
    arguments = ("--verifier", str(verifier), "--threshold", "0.0001", "--no-band", "--stop")
    done = pellucid("verify", "watch", "specimen", QUESTION, *arguments)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    first = done.out.splitlines()[0]
    assert first.startswith("  1  ( 7 * ( 2 - 5 ) )  ")
    assert "flagged" in first and "by its graph" in first
    assert "1 steps, the first flagged one is step 1; 100% needed a graph" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("specimen", "3 + 4"), "has no '='; write a question and '='"),
        (("specimen", QUESTION, "--threshold", "7"), "the threshold is 7.0; give a probability"),
        (("specimen", QUESTION, "--agreement", "0"), "the agreement is 0.0; give a share"),
        (("specimen", QUESTION, "--by", "words"), "unknown way to cut a text 'words'"),
        (("specimen:planted-dropped-minus", QUESTION), "was fitted on steps of another model"),
    ],
)
def test_bad_input_is_one_line(pellucid, verifier, arguments, message):
    done = pellucid(
        "verify", "watch", *arguments, "--verifier", str(verifier), "--dictionaries", "specimen"
    )
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_verifier_of_another_model_is_allowed_when_asked_for(pellucid, verifier):
    arguments = ("--verifier", str(verifier), "--any-model", "--dictionaries", "specimen")
    done = pellucid(
        "verify", "watch", "specimen:planted-dropped-minus", QUESTION, *arguments, "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"]


def test_a_folder_without_a_verifier_is_named(pellucid, tmp_path):
    done = pellucid("verify", "watch", "specimen", QUESTION, "--verifier", str(tmp_path))
    assert done.code == 2 and "has no manifest.json" in done.err
