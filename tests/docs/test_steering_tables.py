"""The tables of docs/steering.md are what the results say."""

from benchmarks.steering_tables import STEERING_PAGE, TABLES, refreshed
from benchmarks.tables import BLOCK


def test_the_page_shows_the_results_as_they_are() -> None:
    page = STEERING_PAGE.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run python -m benchmarks.steering_tables"


def test_every_table_stands_on_the_page() -> None:
    page = STEERING_PAGE.read_text(encoding="utf-8")
    assert sorted(match[2] for match in BLOCK.finditer(page)) == sorted(TABLES)
