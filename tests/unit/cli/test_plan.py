"""`pellucid plan`: its JSON, its tables, and plans that are refused."""

import json

import pytest

from unit.cli.conftest import Command, Workshop
from unit.cli.test_bad_input import assert_refused

SMALL = ("--features", "64", "--k", "4", "--tokens", "2k", "--batch-tokens", "128")
STATED = ("--hardware", "tflops=10,memory=8,bandwidth=100,link=10")


def test_a_measured_plan_is_one_json_object(pellucid: Command, workshop: Workshop) -> None:
    outcome = pellucid(
        *("plan", workshop.model, "--data", workshop.text, *SMALL, "--json", "--quiet"),
        *("--probe-seconds", "0.2", "--layers", "0-1", "--store", "float16"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert {"memory", "disk", "speed", "layout", "layouts", "fits", "parameters"} <= set(found)
    assert found["layers"] == [0, 1]
    assert found["features"] == [64, 64]
    assert found["disk"]["dictionaries"] == 2 * found["parameters"]
    assert found["speed"]["tokens_per_second"] > 0
    assert found["fits"] is True


def test_a_plan_for_other_machines_shows_every_layout(
    pellucid: Command, workshop: Workshop
) -> None:
    (workshop.model / "model.safetensors").rename(workshop.model / "away")
    try:
        outcome = pellucid(
            *("plan", workshop.model, *SMALL, *STATED, "--gpus", "4", "--device", "cuda"),
        )
    finally:
        (workshop.model / "away").rename(workshop.model / "model.safetensors")
    assert outcome.code == 0, outcome.err
    assert "data=4,layers=1,features=1" in outcome.out
    assert "CUDA and libraries" in outcome.out
    assert "speed is an estimate" in outcome.out


def test_what_does_not_fit_is_shown_and_refused(pellucid: Command, workshop: Workshop) -> None:
    outcome = pellucid(
        *("plan", workshop.model, *SMALL, *STATED, "--memory", "0.5", "--json", "--quiet")
    )
    assert outcome.code == 2
    assert json.loads(outcome.out)["fits"] is False
    assert outcome.err.count("\n") == 1
    assert "a process needs" in outcome.err and "and has 477 MiB" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hardware", "tflops=10"), ("hardware lacks memory, bandwidth",)),
        (("--features", "64", "--expansion", "2"), ("--features 64 and --expansion 2",)),
        (("--layers", "2-1"), ("--layers", "runs backwards")),
        (("--gpus", "7", *STATED), ("7 processes cannot share this training",)),
        (("--layout", "data=2", *STATED), ("takes 2 processes but there are 1",)),
    ],
)
def test_bad_settings_are_one_line(
    pellucid: Command, workshop: Workshop, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    settings = ("--k", "4", "--batch-tokens", "128", "--features", "64")
    chosen = settings[:4] if "--features" in options else settings
    assert_refused(pellucid("plan", workshop.model, *chosen, *options, "--quiet"), *words)
