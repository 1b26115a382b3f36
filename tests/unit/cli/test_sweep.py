"""`pellucid sweep`: its JSON, its files, and grids that are refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unit.cli.conftest import Command, Workshop
from unit.cli.test_bad_input import assert_refused

GRID = ("--features", "48", "--tokens", "600", "--batch-tokens", "128", "--measure-tokens", "300")


def test_sweep_reports_rows_front_and_files(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    command = ["sweep", workshop.model, "--data", workshop.text, "--out", tmp_path / "out", *GRID]
    command += ["--k", "2,4", "--kinds", "transcoder", "--layers", "0-1"]
    command += ["--activations", "relu", "--sparsities", "0.2", "--learning-rates", "1e-3"]
    outcome = pellucid(*command, "--plot", tmp_path / "plot.png", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [row["k"] for row in found["rows"]] == [2, 4]
    names = {row["name"] for row in found["rows"]}
    assert set(found["front"]["mlp_out"]["fvu"]) <= names
    assert Path(found["files"]["table"]).exists()
    assert Path(found["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert found["seconds"] > 0

    again = pellucid(*command, "--quiet")
    assert again.code == 0, again.err
    assert "transcoder-relu-f48-k2-" in again.out
    assert (tmp_path / "out" / "sweep.svg").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--k", "2,x"), ("--k", "'x' is not a count")),
        (("--k", "2,64"), ("k is 64 but there are only 48 features",)),
        (("--k", "2", "--kinds", "transcoder,moe"), ("unknown kind 'moe'", "skip-transcoder")),
        (("--k", "2", "--activations", "gelu"), ("unknown activation 'gelu'",)),
        (("--k", "2", "--seeds", "a"), ("--seeds", "'a' is not a seed")),
        (("--k", "2", "--sparsities", "0.1"), ("sparsities mean nothing to topk",)),
        (("--k", "2", "--sparsities", "0.1,-1"), ("--sparsities", "'-1' is not a positive")),
        (("--k", "2", "--learning-rates", "x"), ("--learning-rates", "'x' is not a positive")),
        (("--k", "2", "--plot", "a.gif"), ("a.gif ends in '.gif'",)),
    ],
)
def test_bad_grids_are_one_line(
    pellucid: Command,
    workshop: Workshop,
    tmp_path: Path,
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    outcome = pellucid(
        *("sweep", workshop.model, "--data", workshop.text, "--out", tmp_path / "out", "--quiet"),
        *(*GRID, *options),
    )
    assert_refused(outcome, *words)
    assert not (tmp_path / "out").exists()


def test_a_killed_sweep_goes_on_to_the_same_figures(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    command = ["sweep", workshop.model, "--data", workshop.text, *GRID, "--k", "2,4"]
    command += ["--layers", "0", "--json", "--quiet", "--threads", torch.get_num_threads()]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", *map(str, command), "--out", str(killed)],
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and not any(killed.glob("run-*.json")):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert len(list(killed.glob("run-*.json"))) >= 1

    went_on = pellucid(*command, "--out", killed)
    assert went_on.code == 0, went_on.err
    whole = pellucid(*command, "--out", tmp_path / "whole")
    assert figures(went_on.out) == figures(whole.out)


def figures(out: str) -> list[dict[str, object]]:
    rows = json.loads(out)["rows"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
