"""The public names: there, documented, and nothing else."""

import inspect

import pytest

import pellucid
from arch.source import ROOT

NAMES = {
    "AttributionGraph",
    "ReplacementModel",
    "Trace",
    "evaluate",
    "graphs",
    "interventions",
    "load_dictionaries",
    "load_model",
    "plan",
    "trace",
    "train",
}


def test_the_public_interface_is_these_names() -> None:
    assert set(pellucid.__all__) == NAMES
    assert set(dir(pellucid)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(pellucid, name)
    documentation = inspect.getdoc(value) or ""
    assert documentation
    if inspect.isfunction(value):
        for parameter in inspect.signature(value).parameters:
            assert f"{parameter}:" in documentation, f"{name} does not explain {parameter}"
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert f"`{name}`" in pages or f"{name}(" in pages


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="load_modl"):
        pellucid.load_modl  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    assert f'version = "{pellucid.__version__}"' in (ROOT / "pyproject.toml").read_text()
