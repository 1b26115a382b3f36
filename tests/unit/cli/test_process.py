"""The installed command as a process of its own: streams, signals, a disk that is full."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unit.cli.conftest import Workshop

COMMAND = [sys.executable, "-m", "pellucid"]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PATIENCE = 120


def train_arguments(workshop: Workshop, out: Path, tokens: str) -> list[str]:
    return [
        *COMMAND,
        *("train", str(workshop.model), "--data", str(workshop.text), "--out", str(out)),
        *("--tokens", tokens, "--features", "64", "--k", "4", "--batch-tokens", "256"),
    ]


def test_json_is_alone_on_standard_output_and_progress_on_standard_error(
    workshop: Workshop, tmp_path: Path
) -> None:
    found = subprocess.run(
        [*train_arguments(workshop, tmp_path / "run", "4k"), "--json"],
        env=ENVIRONMENT | {"FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert len(json.loads(found.stdout)["layers"]) == 3
    assert found.stdout.count("\n") == 1


def test_ctrl_c_in_training_is_one_clear_error_and_the_run_goes_on(
    workshop: Workshop, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = train_arguments(workshop, out, "100M")
    process = subprocess.Popen(
        [*arguments, "--quiet"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert len(errors.strip().splitlines()) == 1
    assert errors.startswith("error: training stopped at")
    assert "--resume" in errors

    again = subprocess.run(
        [*arguments, "--quiet"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


def _small_files_only() -> None:
    """A disk on which no file can grow past a few KiB; writing more fails as if it were full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("verb", ["train", "trace"])
def test_a_full_disk_is_one_clear_error(workshop: Workshop, tmp_path: Path, verb: str) -> None:
    out = tmp_path / "out"
    arguments = {
        "train": train_arguments(workshop, out, "2k"),
        "trace": [
            *(*COMMAND, "trace", str(workshop.model), "w5 w6 w7 w8"),
            *("--dictionaries", str(workshop.dictionaries), "--out", str(out)),
        ],
    }[verb]
    found = subprocess.run(
        [*arguments, "--quiet"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        preexec_fn=_small_files_only,
    )
    assert found.returncode == 2, found.stderr
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    assert str(out) in found.stderr
    assert not out.is_file()


def test_one_computing_thread_is_what_threads_1_gives(workshop: Workshop, tmp_path: Path) -> None:
    probe = (
        "import sys, torch; from pellucid.cli import main; "
        "code = main(['specimen', 'sample', '--count', '1', '--threads', '1', '--quiet']); "
        "print(torch.get_num_threads(), file=sys.stderr); sys.exit(code)"
    )
    found = subprocess.run(
        [sys.executable, "-c", probe],
        env=ENVIRONMENT | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stderr.strip() == "1"
