"""The documentation names everything there is, and shows it as it is."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pellucid.cli.app import build
from pellucid.core import errors
from pellucid.core.registry import Registry
from pellucid.dictionaries.activations import ACTIVATIONS
from pellucid.dictionaries.checkpoint import DICTIONARIES
from pellucid.dictionaries.formats.registry import FORMATS
from pellucid.models.families import FAMILIES
from pellucid.training import TrainingStoppedError
from pellucid.training.tracking import TRACKERS
from pellucid.verification.metrics.calibration import CALIBRATION
from pellucid.verification.metrics.separation import SEPARATION
from pellucid.verification.verifier.calibrate import CALIBRATORS
from pellucid.verification.verifier.estimators import ESTIMATORS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(command: Any, path: str = "pellucid") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


COMMANDS = dict(commands(build()))


def test_the_command_line_page_shows_the_help_as_it_is() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert load(ROOT / "docs" / "cli_reference.py").refreshed(page) == page, "run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_section(name: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"\n## `{name}`\n" in page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


COMMON = {"--json", "--seed", "--device", "--threads", "--quiet"}


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if not hasattr(command, "commands")]
)
def test_every_verb_takes_the_common_options(name: str) -> None:
    taken = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert taken >= COMMON


def test_every_error_is_explained() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    for kind in [*kinds, TrainingStoppedError]:
        assert f"`{kind.__name__}`" in page


def test_every_registered_name_is_documented() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    registries: list[Registry[Any]] = [
        *(ACTIVATIONS, DICTIONARIES, FAMILIES, FORMATS, TRACKERS),
        *(CALIBRATION, CALIBRATORS, ESTIMATORS, SEPARATION),
    ]
    for registry in registries:
        for name in registry:
            assert f"`{name}`" in pages, f"{registry.kind} {name!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_has_a_line_for_every_folder_of_the_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in (ROOT / "src" / "pellucid").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"| `src/pellucid/{folder.name}` |" in readme
