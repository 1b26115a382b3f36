"""The verbs that collect steps and compare verifiers."""

from pathlib import Path

import pytest

from unit.cli.conftest import Command
from unit.cli.test_verbs import record


def test_collected_steps_and_a_second_call_finds_them(pellucid: Command, tmp_path: Path) -> None:
    out = tmp_path / "steps"
    asked = ["verify", "collect", "specimen", "--out", out, "--questions", 6, "--target", "answer"]
    asked += ["--max-features", 8, "--operators", "2-3", "--json"]
    first, again = record(pellucid(*asked)), record(pellucid(*asked))
    assert (first["read"], again["found"]) == (6, 6)
    assert first["steps"] == again["steps"] >= 12
    assert first["seconds_per_step"] > 0
    other = pellucid(*asked[:-2], "2-4")
    assert other.code != 0 and "holds steps made with other chains" in other.err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("collect", "specimen", "--operators", "many"), "--operators is 'many'"),
        (("collect", "specimen", "--target", "thought"), "no target 'thought'"),
        (("experiment", "specimen", "--regime", "hard"), "no regime 'hard'"),
        (("experiment", "other", "--regime", "planted"), "no planted copies of other"),
        (("experiment", "specimen", "--scale", 0), "--scale 0"),
    ],
)
def test_what_cannot_be_done_is_said_first(
    pellucid: Command, tmp_path: Path, asked: tuple[object, ...], says: str
) -> None:
    outcome = pellucid("verify", *asked, "--out", tmp_path / "out")
    assert outcome.code != 0
    assert says in " ".join(outcome.err.split())
    assert not (tmp_path / "out").exists()
