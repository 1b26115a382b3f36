"""`pellucid patch`: every method on the specimen, and its refusals."""

import json
from pathlib import Path

import pytest

from unit.cli.conftest import Command

CLEAN = "the capital of the state containing dallas is"
CORRUPT = "the capital of the state containing fresno is"
PAIR = ("patch", "specimen", "--clean", CLEAN, "--corrupt", CORRUPT)
METHODS = [
    (),
    ("--direction", "noise", "--site", "z", "--metric", "kl"),
    ("--method", "atp*", "--site", "z", "--top", "4"),
    ("--method", "eap-ig", "--site", "edges", "--top", "4"),
    ("--method", "rome", "--subject", "dallas"),
    ("--method", "paths", "--sender", "mlp_out@0", "--receiver", "v@1[5]"),
    ("--method", "dla"),
    ("--method", "lens"),
]


@pytest.mark.parametrize("method", METHODS)
def test_json_has_its_keys(pellucid: Command, method: tuple[str, ...]) -> None:
    outcome = pellucid(*PAIR, *method, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found["receipt"]) == {"sites", "tokens_edited", "mean_relative_norm"}
    assert found["effect"]
    assert found["prompt"]["answer"] == "austin"
    assert found["files"] == {}


def test_the_table_shows_the_bridge_beside_its_controls(pellucid: Command, tmp_path: Path) -> None:
    same = "the capital of the state containing oakland is"
    outcome = pellucid(*PAIR, "--same", same, "--out", tmp_path / "found")
    assert outcome.code == 0, outcome.err
    assert "fresno (7)" in outcome.out
    assert "same answer" in outcome.out
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "result.json",
        "result.png",
        "result.svg",
    ]
    written = json.loads((tmp_path / "found" / "result.json").read_text())
    assert written["effect"]["effect"] > 0.9
    assert written["receipt"]["tokens_edited"] == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "patching"), "--method patching needs --corrupt; give it"),
        (("--corrupt", CORRUPT + " the"), "9 tokens and corrupt 10"),
        (("--corrupt", CORRUPT, "--answer", "zzz"), "answer is 'zzz'"),
        (("--corrupt", CORRUPT, "--answer", "austin", "--other", "austin"), "the same token"),
        (("--corrupt", CORRUPT, "--site", "nowhere"), "unknown site 'nowhere'"),
        (("--corrupt", CORRUPT, "--method", "atp", "--site", "edges"), "is for eap-ig"),
        (("--method", "rome"), "--method rome needs --subject"),
        (("--corrupt", CORRUPT, "--method", "paths"), "needs --sender"),
    ],
)
def test_bad_input(pellucid: Command, arguments: tuple[str, ...], words: str) -> None:
    outcome = pellucid("patch", "specimen", "--clean", CLEAN, *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.strip().startswith("error: ")
    assert words in " ".join(outcome.err.split())
