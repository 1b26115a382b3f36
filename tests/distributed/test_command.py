"""`pellucid train` under torchrun: one report, and one error for bad input."""

import json
from pathlib import Path

from support.torchrun import torchrun


def train(out: Path, *words: str) -> tuple[int, str, str]:
    options = ["--tokens", "4k", "--batch-tokens", "512", "--features", "64"]
    options += ["--k", "4", "--layers", "0-1", "--out", str(out), "--json"]
    ended = torchrun(2, "pellucid", "train", "specimen", *options, *words)
    return ended.returncode, ended.stdout, ended.stderr


def test_two_processes_give_one_report(tmp_path: Path) -> None:
    code, printed, errors = train(tmp_path / "run", "--layout", "layers=2")
    assert code == 0, errors[-2000:]
    (line,) = printed.splitlines()
    report = json.loads(line)
    assert [layer["layer"] for layer in report["layers"]] == [0, 1]
    assert (tmp_path / "run" / "README.md").exists()


def test_what_several_processes_cannot_do_is_said_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    for words, message in [
        (("--layout", "features=3"), "takes 3 processes but there are 2"),
        (("--finetune", "kl"), "--finetune kl is not spread over processes, of which there are 2"),
    ]:
        code, _, errors = train(tmp_path / "run", *words)
        assert code != 0
        assert message in errors
        assert not (tmp_path / "run").exists()
