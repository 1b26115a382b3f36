"""`pellucid verify fit` from the outside."""

import json
from pathlib import Path

import pytest

from pellucid.core.claims import claim_folder
from pellucid.core.manifest import Manifest
from pellucid.verification.collecting.collect import KIND
from pellucid.verification.steps.step_set import StepSet, write_steps
from pellucid.verification.verifier import load_verifier
from support.made_steps import made_steps
from unit.cli.conftest import Command


def collected(folder: Path, steps: StepSet, *, parts: int = 2, **record: object) -> Path:
    """A folder as `pellucid verify collect` leaves it."""
    made = {**steps.record, **record}
    claim_folder(folder, made, "steps")
    for number in range(parts):
        part = folder / f"part-{number:05d}"
        part.mkdir()
        rows = steps.select(steps.columns["chain"] % parts == number)
        files = write_steps(rows, part)
        Manifest(kind=KIND, config=made, results={"steps": len(rows)}).write(part, files)
    return folder


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collected(tmp_path_factory.mktemp("steps") / "plain", made_steps(90))


QUICK = ("--estimator", "logistic", "--folds", "3", "--refits", "0", "--quiet")


def test_it_writes_a_verifier_and_says_how_good_it_is(
    pellucid: Command, steps: Path, tmp_path
) -> None:
    other = collected(tmp_path / "other", made_steps(40, seed=1), model="model-b")
    outcome = pellucid(
        *("verify", "fit", steps, other, "--out", tmp_path / "v", "--columns", "graph."),
        *("--recall", "0.9", "--seed", "3", "--json", *QUICK),
    )
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    ours, length = record["methods"]["verifier"], record["methods"]["length"]
    for row in (ours, length):
        assert set(row) == {"auroc", "ap", "aupr", "fpr95", "low", "high", "intervals"}
        assert row["low"] < row["auroc"] < row["high"]
    assert ours["auroc"] > 0.85 > 0.65 > length["auroc"]
    assert record["beyond_length"]["auroc"]["low"] > 0
    assert record["matched"]["auroc"] > 0.8
    assert 0 < record["ece"]["value"] < 0.15
    assert 0 < record["brier"]["value"] < 0.2
    assert record["threshold"]["questions"]["value"] > 0.75
    assert record["promise"]["recall"] == 0.9
    assert record["models"] == ["model-a", "model-b"]
    verifier = load_verifier(tmp_path / "v", model_fingerprint="model-b")
    assert list(verifier.columns) == record["columns"]
    assert verifier.record["seed"] == 3
    assert verifier.record["questions"] == 130


def test_it_tells_a_reader(pellucid: Command, steps: Path, tmp_path) -> None:
    outcome = pellucid("verify", "fit", steps, "--out", tmp_path / "v", *QUICK)
    assert outcome.code == 0, outcome.err
    for words in ("On questions left out", "lengths", "ECE", "wrote"):
        assert words in outcome.out
    again = pellucid("verify", "fit", steps, "--out", tmp_path / "w", *QUICK)
    assert again.out.splitlines()[:-1] == outcome.out.splitlines()[:-1]


def test_bad_input_is_refused(pellucid: Command, steps: Path, tmp_path) -> None:
    def refused(folders, *options: object) -> str:
        outcome = pellucid("verify", "fit", *folders, "--out", tmp_path / "v", *QUICK, *options)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert len(outcome.err.strip().splitlines()) == 1
        return outcome.err

    assert "holds no steps" in refused([tmp_path])
    assert "begins so" in refused([steps], "--columns", "graf.")
    assert "is a label" in refused([steps], "--columns", "wrong_so_far")
    assert "unknown estimator" in refused([steps], "--estimator", "forest")
    assert "unknown calibration" in refused([steps], "--calibration", "beta")
    assert "recall is 1.5" in refused([steps], "--recall", "1.5")
    right = collected(tmp_path / "right", made_steps(30, rate=0.0))
    assert "a verifier needs right and wrong ones" in refused([right])
    otherwise = collected(tmp_path / "otherwise", made_steps(30), dictionaries="others")
    assert "read with other dictionaries" in refused([steps, otherwise])
    (tmp_path / "file").write_text("")
    outcome = pellucid("verify", "fit", steps, "--out", tmp_path / "file", *QUICK)
    assert "is a file" in outcome.err
