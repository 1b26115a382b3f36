"""Tests of the Triton kernels: on a GPU, or interpreted with TRITON_INTERPRET=1 in the environment.

`test_interpreted.py` beside this folder runs them in a process of their own, where the variable is
set before Triton is imported; without it and without a GPU there is nothing to collect here.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture
def device() -> str:
    return "cpu" if INTERPRETED else "cuda"
