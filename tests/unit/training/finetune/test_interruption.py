"""A fine-tuning process that is killed, and what goes on from it."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from pellucid.dictionaries import load_dictionaries
from support import finetune_process

ROOT = Path(__file__).parents[4]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
}


def killed(out: Path, steps: int) -> None:
    """Start fine-tuning in a process and kill it after so many steps."""
    command = [sys.executable, "-m", "support.finetune_process", str(out)]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(steps):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL


def test_killed_and_resumed_is_bit_for_bit_uninterrupted(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    moment = random.randrange(2, finetune_process.STEPS - 4)
    killed(tmp_path / "broken", moment)
    assert not (tmp_path / "broken" / "manifest.json").exists()
    assert finetune_process.main(broken, "--resume") == 0
    assert finetune_process.main(whole) == 0

    expected, found = load_dictionaries(whole), load_dictionaries(broken)
    assert expected.manifest is not None and found.manifest is not None
    assert found.manifest.results["finetune"] == expected.manifest.results["finetune"]
    for layer in expected.layers:
        name = f"layer_{layer}.safetensors"
        tensors = load_file(tmp_path / "broken" / name)
        for key, tensor in load_file(tmp_path / "whole" / name).items():
            assert tensors[key].equal(tensor), f"{key} of {name}, killed after {moment} steps"
