"""`pellucid steer`: what it reports and writes, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.interventions.steering.contrast import caa
from pellucid.interventions.steering.sweep import sweep
from pellucid.interventions.steering.vector import load_vector
from pellucid.interventions.where import window
from pellucid.models.load import load_model
from unit.cli.conftest import Command, Outcome, Workshop
from unit.cli.test_bad_input import assert_refused

POSITIVE, NEGATIVE = ["w5 w6", "w7 w8", "w9 w5"], ["w15 w6", "w17 w8", "w19 w5"]
Steer = Callable[..., Outcome]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Contrasting texts and prompts."""
    found = {}
    for name, texts in (
        ("positive", POSITIVE),
        ("negative", NEGATIVE),
        ("prompts", ["w30 w31", "w32"]),
    ):
        found[name] = tmp_path / f"{name}.txt"
        found[name].write_text("\n".join(texts), encoding="utf-8")
    return found


@pytest.fixture
def steering(pellucid: Command, workshop: Workshop, files: dict[str, Path]) -> Steer:
    """`pellucid steer` of the tiny model with these arguments more."""

    def run(*more: object) -> Outcome:
        return pellucid(
            *("steer", workshop.model, "--prompts", files["prompts"], "--strengths", "0.5,1"),
            *("--quiet", *more),
        )

    return run


@pytest.fixture
def pair(files: dict[str, Path]) -> tuple[object, ...]:
    """The options of contrasting texts."""
    return ("--positive", files["positive"], "--negative", files["negative"])


def test_figures_are_those_of_the_library(
    steering: Steer, pair: tuple[object, ...], workshop: Workshop, tmp_path: Path
) -> None:
    outcome = steering(*pair, "--target", "w40 w41", "--json", "--out", tmp_path / "out")
    record = json.loads(outcome.out)
    model = load_model(workshop.model)
    vector = caa(model, POSITIVE, NEGATIVE, "resid_post@1").at(window(-1))
    prompts = ["w30 w31", "w32"]
    expected = sweep(
        model, vector, [0.5, 1.0], prompts=prompts, targets=["w40 w41"], neutral=prompts
    )
    for row, other in zip(record["table"]["rows"], expected.rows, strict=True):
        assert row["effect"] == pytest.approx(other.effect, abs=1e-5)
        assert row["ce_change"] == pytest.approx(other.ce_change, abs=1e-5)
    assert record["effect"] == pytest.approx(expected.rows[2].effect, abs=1e-5)
    receipt = record["receipt"]
    assert receipt["tokens_edited"] >= 2
    assert receipt["sites"][0]["site"] == "resid_post@1"
    assert receipt["mean_relative_norm"] > 0
    assert len(record["samples"]) == 6
    assert record["neutral"] == "prompts"
    saved = load_vector(record["files"]["vector"])
    assert saved.where == window(-1)
    assert saved.cosine(vector) == pytest.approx(1.0, abs=1e-5)
    assert json.loads((tmp_path / "out" / "table.json").read_text())["method"] == "caa"


def test_a_saved_vector_steers_again_and_has_a_cosine(
    steering: Steer, pair: tuple[object, ...], tmp_path: Path
) -> None:
    assert steering(*pair, "--out", tmp_path / "out").code == 0
    vector = tmp_path / "out" / "vector"
    outcome = steering(
        *("--vector", vector, "--target", "w40", "--refusal", vector, "--tokens", "last"), "--json"
    )
    record = json.loads(outcome.out)
    assert record["cosine_with_refusal"] == pytest.approx(1.0, abs=1e-5)
    shown = steering("--vector", vector, "--target", "w40", "--refusal", vector)
    assert "cosine with refusal: 1.0" in shown.out.replace("0.99999", "1.0")


@pytest.mark.parametrize("method", ["mean", "repe", "actadd"])
def test_every_contrast(steering: Steer, pair: tuple[object, ...], method: str) -> None:
    outcome = steering(*pair, "--method", method, "--site", "resid_post@0", "--json")
    record = json.loads(outcome.out)
    assert (record["method"], record["site"]) == (method, "resid_post@0")


def test_features(steering: Steer, workshop: Workshop) -> None:
    dictionaries = ("--dictionaries", workshop.dictionaries, "--target", "w40", "--json")
    record = json.loads(steering("--feature", "1:3", *dictionaries).out)
    assert record["site"] == "mlp_out@1"
    assert record["provenance"]["feature"] == 3
    found = json.loads(steering("--method", "output-score", *dictionaries).out)
    assert found["method"] == "feature"


def test_a_condition(steering: Steer, pair: tuple[object, ...], files: dict[str, Path]) -> None:
    gate = ("--when", files["positive"], "--unless", files["negative"])
    record = json.loads(steering(*pair, *gate, "--target", "w40", "--json").out)
    assert record["condition"]["site"] == "resid_post@0"
    assert 0 <= record["condition"]["f1"] <= 1


def test_bad_options(
    steering: Steer,
    pair: tuple[object, ...],
    files: dict[str, Path],
    tmp_path: Path,
    workshop: Workshop,
) -> None:
    dictionaries = ("--dictionaries", workshop.dictionaries, "--target", "w40")
    assert_refused(steering(), "--positive and --negative")
    assert_refused(steering("--positive", files["positive"]), "--negative")
    assert_refused(steering(*pair, "--feature", "0:1"), "not several")
    assert_refused(steering(*pair, "--method", "feature"), "--feature")
    assert_refused(steering("--method", "sae-ts", "--target", "w40"), "--feature")
    assert_refused(steering("--feature", "0:1", *dictionaries[:2]), "--target is missing")
    assert_refused(steering("--feature", "one", *dictionaries), "'one'", "LAYER:NUMBER")
    assert_refused(steering("--feature", "0:99", *dictionaries), "99", "0 to 23")
    assert_refused(steering("--feature", "0:1", "--target", "w40"), "--dictionaries")
    assert_refused(steering("--feature", "0:1", "--site", "embed", *dictionaries), "--site")
    assert_refused(steering(*pair, "--method", "magic"), "magic", "caa")
    assert_refused(steering(*pair, "--strengths", "0,1"), "--strengths", "other than 0")
    assert_refused(steering(*pair, "--strengths", "much"), "--strengths", "much")
    assert_refused(steering(*pair, "--site", "resid_post@9"), "9")
    assert_refused(steering(*pair, "--site", "z@1"), "z@1")
    assert_refused(steering(*pair, "--when", files["prompts"]), "--unless")
    assert_refused(steering("--vector", tmp_path, "--target", "w40"), "manifest.json")
    assert_refused(steering(*pair, "--target", "unheard"), "unheard")
    assert_refused(steering(*pair, "--data", tmp_path / "none.txt"), "none.txt")
    short = tmp_path / "short.txt"
    short.write_text("w5 w6", encoding="utf-8")
    assert_refused(
        steering("--positive", files["positive"], "--negative", short), "3 positive and 1 negative"
    )
