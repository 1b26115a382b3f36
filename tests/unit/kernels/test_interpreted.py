"""The Triton kernels, tested without a GPU through Triton's interpreter.

The interpreter has to be asked for before Triton is first imported, and then serves the whole
process; so the tests in the folder `triton` run in one of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_triton_kernels_pass_their_tests_interpreted() -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    folder = Path(__file__).with_name("triton")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "COV_"))}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", str(folder)],
        env=environment | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=folder.parents[3],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert " skipped" not in found.stdout, found.stdout
