"""The public names of `pellucid.graphs`: there, explained, and cheap to import."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import graphs

READING = (Path(__file__).parents[3] / "docs" / "reading.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", graphs.__all__)
def test_every_name_is_there_and_explained(name: str) -> None:
    value = getattr(graphs, name)
    assert not inspect.ismodule(value)
    assert inspect.getdoc(value)
    assert name in dir(graphs)


@pytest.mark.parametrize("name", [n for n in graphs.__all__ if n[0].islower()])
def test_every_function_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in READING or f"graphs.{name}(" in READING
    for parameter in inspect.signature(getattr(graphs, name)).parameters:
        documented = inspect.getdoc(getattr(graphs, name)) or ""
        if "Args:" in documented:
            assert f"{parameter}:" in documented, f"{name} does not explain {parameter}"


def test_names_that_are_modules_too_stay_functions() -> None:
    import pellucid.graphs.compare
    import pellucid.graphs.prune
    import pellucid.graphs.scores
    import pellucid.graphs.stability

    for name in ("compare", "prune", "scores", "stability"):
        assert callable(getattr(pellucid.graphs, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"pellucid\.graphs.*'compre'"):
        graphs.compre  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, json, pellucid; pellucid.graphs.compare; print(json.dumps([*sys.modules]))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stderr == ""
    loaded = {name.split(".")[0] for name in json.loads(found.stdout)}
    assert not loaded & {"torch", "transformers", "scipy", "networkx", "pyarrow", "pandas"}
