"""Killed before operations on the file system that a seed draws, a training ends as if it lived."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEED, KILLS = 6, 3


def test_trainings_killed_and_resumed_end_bit_for_bit_and_leave_nothing(tmp_path: Path) -> None:
    """From a cache, and fine-tuning; `benchmarks.faults` kills at moments in time."""
    done = subprocess.run(
        [sys.executable, "-m", "support.killed_training", str(tmp_path), str(SEED), str(KILLS)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    word, _, killed = done.stdout.strip().partition(" ")
    assert word == "killed" and int(killed) >= 2 * KILLS
