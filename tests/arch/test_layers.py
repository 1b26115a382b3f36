"""The layer contract of `pyproject.toml`, run as the developer's command runs it."""

import subprocess
import sys
import tomllib
from pathlib import Path

from arch.source import PACKAGE, ROOT


def test_the_layer_contract_holds() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_contract_is_exhaustive_and_names_every_part() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    named = {part.strip() for layer in contract["layers"] for part in layer.split("|")}
    present = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert contract["exhaustive"]
    assert named == present - {"__init__"}
