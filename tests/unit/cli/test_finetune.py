"""`pellucid train --finetune`: after ordinary training, and on a set there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.dictionaries import load_dictionaries
from unit.cli.conftest import Command, Workshop
from unit.cli.test_bad_input import assert_refused

KEYS = {"out", "tokens", "tokens_per_second", "layers", "measured_on", "finetune"}


@pytest.fixture(autouse=True)
def little_held_out_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.training.finetune.loop import finetune
    from pellucid.training.loop import train

    for function in (train, finetune):
        monkeypatch.setitem(function.__kwdefaults__, "held_out_tokens", 200)


def training(workshop: Workshop, out: Path, *more: object) -> tuple[object, ...]:
    given = ("train", workshop.model, "--data", workshop.text, "--out", out)
    return (*given, "--finetune", "kl", "--finetune-tokens", "4k", *more)


def test_both_passes_in_one_command_and_again(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    sizes = ("--tokens", "1k", "--features", 64, "--k", 4, "--batch-tokens", 128)
    command = training(workshop, tmp_path, *sizes, "--json", "--quiet")
    outcome = pellucid(*command)
    assert outcome.code == 0, outcome.err
    record: dict[str, Any] = json.loads(outcome.out)
    assert set(record) == KEYS | {"ordinary"}
    assert record["ordinary"]["out"] == str(tmp_path / "before")
    assert record["ordinary"]["tokens"] == 896 and record["tokens"] >= 2048
    assert record["finetune"]["before"]["kl"] > 0

    before, after = load_dictionaries(tmp_path / "before"), load_dictionaries(tmp_path)
    assert before.manifest is not None and after.manifest is not None
    training_before = before.manifest.config["training"]
    assert after.manifest.config["training"]["trained_before"] == training_before

    assert json.loads(pellucid(*command, "--resume").out) == record
    assert_refused(pellucid(*command), "already holds")


def test_a_set_there_is_and_its_tables(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    command = training(workshop, tmp_path, "--dictionaries", workshop.dictionaries)
    outcome = pellucid(*command)
    assert outcome.code == 0, outcome.err
    for word in ("All MLPs replaced at once", "before", "after", "Drift of the features"):
        assert word in outcome.out
    assert "of the cross-entropy gap closed" in " ".join(outcome.out.split())
    assert load_dictionaries(tmp_path).layers == [0, 1, 2]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--finetune-tokens", "5k"], ["--finetune-tokens 5000", "without --finetune"]),
        (["--dictionaries", "some"], ["--dictionaries some", "without --finetune"]),
        (["--finetune", "mse"], ["mse", "kl"]),
        (["--finetune", "kl", "--kind", "sae"], ["--kind sae", "MLPs"]),
        (
            ["--finetune", "kl", "--read", "a.{layer}", "--write", "b.{layer}"],
            ["--read and --write", "MLPs"],
        ),
        (
            ["--finetune", "kl", "--dictionaries", "some", "--k", 4],
            ["--k is a setting of ordinary training"],
        ),
        (
            ["--finetune", "kl", "--dictionaries", "some", "--batch-tokens", 128],
            ["--batch-tokens is a setting of ordinary training"],
        ),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    pellucid: Command, workshop: Workshop, tmp_path: Path, more: list[object], words: list[str]
) -> None:
    base = ("train", workshop.model, "--data", workshop.text, "--out", tmp_path / "run")
    assert_refused(pellucid(*base, *more, "--quiet"), *words)
    assert not (tmp_path / "run").exists()
