"""docs/verification_baselines.md shows every baseline and every free score as they are."""

import importlib.util
from pathlib import Path
from typing import get_args

from pellucid.verification.methods.method import Rung
from pellucid.verification.methods.registry import METHODS, MOVING, SURE
from pellucid.verification.reading.confidence import ANSWER

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "verification_baselines.md").read_text(encoding="utf-8")


def test_the_tables_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("baselines_table", DOCS / "baselines_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.refreshed(PAGE) == PAGE, "run python docs/baselines_table.py"


def test_every_method_score_and_rung_stands_on_the_page() -> None:
    names = [*METHODS, *MOVING, *(each for each in SURE if ANSWER not in each), *get_args(Rung)]
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_baseline_is_explained_in_a_line_with_its_source() -> None:
    for name in METHODS:
        each = METHODS[name]
        assert 10 < len(each.says) < 100
        assert each.source
        assert each.rung in get_args(Rung)
