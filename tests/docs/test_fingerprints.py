"""The page of fingerprints shows every definition as it is."""

import importlib.util
from pathlib import Path

from pellucid.verification.fingerprints.bags import BAGS
from pellucid.verification.fingerprints.fingerprint import FAMILIES, definitions

DOCS = Path(__file__).parents[2] / "docs"


def test_every_family_column_and_bag_is_documented() -> None:
    page = (DOCS / "fingerprints.md").read_text(encoding="utf-8")
    assert all(f"\n## `{family}`\n" in page for family in FAMILIES)
    for each in definitions():
        row = f"| `{each.name}` | {each.text} | {each.range} | {each.stands} |\n"
        assert row in page, "run `python docs/fingerprints_reference.py`"
    assert all(f"| `{bag}` | {text} |\n" in page for bag, text in BAGS.items())


def test_the_tables_are_refreshed() -> None:
    script = DOCS / "fingerprints_reference.py"
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (DOCS / "fingerprints.md").read_text(encoding="utf-8")
    assert module.refreshed(page) == page
