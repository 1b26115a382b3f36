"""Training in real processes that are stopped and killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from pellucid.dictionaries import load_dictionaries
from support.train_process import BATCH_TOKENS, STEPS

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
}


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "support.train_process", str(out), *flags]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> list[int]:
    """Wait for a process that must succeed; the tokens it reported."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [int(line) for line in output.split()]


def signal_after(process: subprocess.Popen[str], tokens: int, number: int) -> str:
    """Send a signal twice, as terminals do, some time after `tokens` are reported.

    Returns:
        What the process said on stderr.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= tokens:
            break
    time.sleep(random.uniform(0, 0.02))
    process.send_signal(number)
    process.send_signal(number)
    return process.communicate(timeout=600)[1]


def test_killed_and_stopped_and_resumed_is_bit_for_bit_uninterrupted(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = start(whole)

    killed = start(broken)
    moment = random.randrange(1, STEPS // 2) * BATCH_TOKENS
    signal_after(killed, moment, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL

    stopped = start(broken, "--resume")
    message = signal_after(stopped, moment + 10 * BATCH_TOKENS, signal.SIGINT)
    assert stopped.returncode == 130
    assert "training stopped at" in message and "--resume goes on from it" in message
    assert "Traceback" not in message

    reported = finish(start(broken, "--resume"))
    assert 0 < len(reported) < STEPS
    assert finish(uninterrupted)[-1] == reported[-1] == STEPS * BATCH_TOKENS

    expected, found = load_dictionaries(whole), load_dictionaries(broken)
    assert expected.manifest is not None and found.manifest is not None
    assert found.manifest.results["layers"] == expected.manifest.results["layers"]
    for layer in expected.layers:
        name = f"layer_{layer}.safetensors"
        tensors = load_file(broken / name)
        for key, tensor in load_file(whole / name).items():
            assert tensors[key].equal(tensor), f"{key} of {name}, killed after {moment} tokens"
