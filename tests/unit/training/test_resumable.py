"""What a run's folder is while the run has it."""

import multiprocessing
import time
from pathlib import Path

import pytest

from pellucid.core.errors import ConfigError
from pellucid.distributed.processes import ALONE
from pellucid.training.resumable import check_interval, held


def test_a_folder_is_one_runs_until_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with (
        held(out, ALONE),
        pytest.raises(ConfigError, match=r"another process is training in .*run; wait for it"),
        held(out, ALONE),
    ):
        pytest.fail("two runs in one folder")
    with held(out, ALONE):
        assert list(out.iterdir()) == []


def hold_and_wait(out: Path, holds: "multiprocessing.synchronize.Event") -> None:
    with held(out, ALONE):
        holds.set()
        time.sleep(600)


def test_a_killed_run_frees_its_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    holds = context.Event()
    process = context.Process(target=hold_and_wait, args=(tmp_path, holds))
    process.start()
    assert holds.wait(60)
    with pytest.raises(ConfigError, match="another process"), held(tmp_path, ALONE):
        pytest.fail("two runs in one folder")
    process.kill()
    process.join()
    with held(tmp_path, ALONE):
        pass


def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in (".export", "..export.previous", "..export.x1.tmp", "checkpoints", ".kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".README.md.123.tmp").touch()
    (tmp_path / "README.md").touch()
    with held(tmp_path, ALONE):
        found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [".kept", "README.md", "checkpoints"]


def test_an_interval_is_a_number_of_seconds() -> None:
    for seconds in (0.0, 5.0, float("inf")):
        check_interval(seconds)
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"checkpoint_seconds is .*; give 0 \(after every"):
            check_interval(seconds)
