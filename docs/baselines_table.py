"""Refresh the tables of docs/verification_baselines.md: `python docs/baselines_table.py`.

The page is written by hand but for what stands between `<!-- table NAME -->` and
`<!-- end of table -->`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pellucid.verification.methods.registry import METHODS
from pellucid.verification.reading.confidence import CONFIDENCE
from pellucid.verification.reading.embedding_chain import EMBEDDING_CHAIN

PAGE = Path(__file__).with_name("verification_baselines.md")
BLOCK = re.compile(
    r"(^<!-- table (\w+) -->\n).*?(^<!-- end of table -->$)", re.MULTILINE | re.DOTALL
)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def methods() -> str:
    """Every baseline with its rung and source."""
    rows = []
    for name in METHODS:
        each = METHODS[name]
        rows.append([f"`{name}`", each.rung, each.says, each.source])
    return table(["method", "rung", "does", "source"], rows)


def scores(definitions: Mapping[str, str]) -> str:
    """Every free score with its definition."""
    rows = [[f"`free.{name}`", says.replace("|", r"\|")] for name, says in definitions.items()]
    return table(["column", "is"], rows)


def refreshed(page: str) -> str:
    """The page with every table as it is now."""
    made = {
        "methods": methods(),
        "confidence": scores(CONFIDENCE),
        "embedding_chain": scores(EMBEDDING_CHAIN),
    }
    return BLOCK.sub(lambda m: m[1] + made[m[2]] + m[3], page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
