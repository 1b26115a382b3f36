"""Importing the package: silent, cheap, and without a trace outside itself."""

import json
import subprocess
import sys

PROBE = """
import sys, logging, os, warnings, json, threading
state = lambda: {
    "filters": len(warnings.filters),
    "handlers": [str(h) for h in logging.getLogger().handlers],
    "level": logging.getLogger().level,
    "hook": sys.excepthook is sys.__excepthook__,
    "showwarning": warnings.showwarning.__module__,
    "environment": dict(os.environ),
    "threads": threading.active_count(),
    "path": list(sys.path),
}
"""

SHALLOW = (
    PROBE
    + """
before = state()
import pellucid
changed = [key for key, value in state().items() if value != before[key]]
print(json.dumps({"changed": changed, "modules": list(sys.modules)}))
"""
)

DEEP = (
    PROBE
    + """
import torch, transformers, datasets, rich, typer, numpy
def of_torch():
    return {
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "seed": torch.initial_seed(),
        "flush": float(torch.tensor(1e-39) * 1.0) == 0.0,
        "precision": torch.get_float32_matmul_precision(),
        "numpy": numpy.geterr(),
    }
before = state() | of_torch()
import pellucid
for name in pellucid.__all__:
    getattr(pellucid, name)
import pellucid.cli.app
changed = [key for key, value in (state() | of_torch()).items() if value != before[key]]
print(json.dumps({"changed": changed}))
"""
)


def run(code: str) -> dict:
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert len(lines) == 1, "importing printed something"
    return json.loads(lines[0])


def test_importing_the_package_is_silent_and_changes_nothing() -> None:
    assert run(SHALLOW)["changed"] == []


def test_importing_the_package_loads_nothing_that_takes_time() -> None:
    loaded = {name.split(".")[0] for name in run(SHALLOW)["modules"]}
    assert not loaded & {"torch", "transformers", "datasets", "numpy", "pyarrow", "rich", "typer"}


def test_importing_everything_public_changes_no_global() -> None:
    assert run(DEEP)["changed"] == []
