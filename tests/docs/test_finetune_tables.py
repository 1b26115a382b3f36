"""The tables of docs/finetuning.md are what the results say."""

from benchmarks.finetune_tables import FINETUNING_PAGE, TABLES, refreshed
from benchmarks.tables import BLOCK


def test_the_page_shows_the_results_as_they_are() -> None:
    page = FINETUNING_PAGE.read_text(encoding="utf-8")
    assert refreshed(page) == page, "run python -m benchmarks.finetune_tables"


def test_every_table_stands_on_the_page() -> None:
    page = FINETUNING_PAGE.read_text(encoding="utf-8")
    assert sorted(match[2] for match in BLOCK.finditer(page)) == sorted(TABLES)
