"""The tables of docs/benchmarks.md and of its sister pages are what the results say."""

import re

import pytest

from benchmarks.tables import ALSO, BLOCK, PAGE, TABLES, markdown, refreshed


@pytest.mark.parametrize("path", [PAGE, *ALSO], ids=lambda path: path.stem)
def test_page_shows_the_results_as_they_are(path):
    page = path.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run python -m benchmarks.tables"


def test_every_table_stands_on_a_page_and_nothing_else_does():
    pages = [path.read_text(encoding="utf-8") for path in (PAGE, *ALSO)]
    assert {match[2] for page in pages for match in BLOCK.finditer(page)} == set(TABLES)


def test_a_stale_table_is_replaced():
    page = PAGE.read_text(encoding="utf-8")
    stale = re.sub(r"^\| llama .*\n", "| llama | 0 |\n", page, flags=re.MULTILINE)
    assert stale != page
    assert refreshed(stale) == page


def test_rows_are_as_long_as_their_headings():
    assert markdown("a, b", [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    with pytest.raises(ValueError, match="2 headings"):
        markdown("a, b", [["1"]])
