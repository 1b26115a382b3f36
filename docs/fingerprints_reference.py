"""Refresh the tables in docs/fingerprints.md: `python docs/fingerprints_reference.py`.

The page is written by hand but for the table under each heading that names a family, and that of
the bags.
"""

import re
from pathlib import Path

from pellucid.verification.fingerprints.bags import BAGS
from pellucid.verification.fingerprints.fingerprint import FAMILIES

PAGE = Path(__file__).with_name("fingerprints.md")
TABLE = re.compile(
    r"(^#+ `([a-z]+)`[^\n]*\n\n(?:(?:[^|\n#][^\n]*\n)+\n)?)(?:\|[^\n]*\n)+", re.MULTILINE
)


def table(name: str) -> str:
    """The table of one family, or of the bags."""
    if name == "bags":
        rows = [f"| `{bag}` | {text} |" for bag, text in BAGS.items()]
        return "\n".join(["| bag | is |", "|---|---|", *rows]) + "\n"
    rows = [
        f"| `{each.name}` | {each.text} | {each.range} | {each.stands} |"
        for each in FAMILIES[name].definitions
    ]
    return "\n".join(["| column | is | range | stands for |", "|---|---|---|---|", *rows]) + "\n"


def refreshed(page: str) -> str:
    """The page with every table as the definitions have it now."""
    return TABLE.sub(lambda match: match[1] + table(match[2]), page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
