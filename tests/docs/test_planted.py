"""The tables of docs/planted.md are what the results say."""

from benchmarks.planted import BLOCK, PAGE, TABLES, refreshed


def test_page_shows_the_results_as_they_are():
    page = PAGE.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run python -m benchmarks.planted --docs"
    assert sorted(match[2] for match in BLOCK.finditer(page)) == sorted(TABLES)
