"""`pellucid specimen plant`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pellucid.core.registry import Registry
from pellucid.verification.planted import recipe
from unit.cli.conftest import Command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of seconds."""
    small = replace(recipe.RECIPES["xor-both"], batches=1, rows=2, length=64, tested=2)
    monkeypatch.setattr(recipe, "RECIPES", Registry("planted rule", {"xor-both": small}))


@pytest.mark.usefixtures("quick")
def test_a_rule_is_planted_where_it_is_asked(pellucid: Command, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    arguments = ("--out", out, "--layer", "2", "--steps", "1")
    done = pellucid("specimen", "plant", "xor-both", *arguments, "--json", "--quiet")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["rule"] == "xor-both" and record["layer"] == 2
    assert record["results"]["corpus_loss"] > 0
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "update.safetensors"]
    config = json.loads((out / "manifest.json").read_text())["config"]
    assert (config["layer"], config["steps"]) == (2, 1)
    shown = pellucid("specimen", "plant", "xor-both", *arguments, "--quiet")
    assert shown.code == 0 and "other steps wrong" in shown.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("poet",), "unknown planted rule 'poet'; use one of"),
        (("xor-both", "--layer", "7"), "layer is 7 and the model has 4 layers"),
        (("xor-both", "--steps", "0"), "steps is 0; give at least 1"),
    ],
)
def test_bad_input_is_one_line(
    pellucid: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = pellucid("specimen", "plant", *arguments, "--out", tmp_path / "out", "--quiet")
    assert done.code == 2
    assert message in done.err and done.err.count("\n") == 1
