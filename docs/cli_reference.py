"""Refresh the help texts in docs/cli.md: `python docs/cli_reference.py` (`make docs`).

The page is written by hand but for the `text` block under each heading that names a command.
"""

import re
from pathlib import Path

from pellucid.cli.app import build

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
HELP = re.compile(r"(^#+ `(pellucid[a-z ]*)`\n\n```text\n).*?(^```$)", re.MULTILINE | re.DOTALL)


def help_text(words: list[str]) -> str:
    """What `--help` prints for a command, on a terminal of fixed width."""
    context = build().make_context("pellucid", [], resilient_parsing=True, terminal_width=WIDTH)
    for word in words[1:]:
        command = context.command.commands[word]
        context = command.make_context(
            word, [], parent=context, resilient_parsing=True, terminal_width=WIDTH
        )
    return "\n".join(line.rstrip() for line in context.get_help().splitlines()) + "\n"


def refreshed(page: str) -> str:
    """The page with every help text as it is now."""
    return HELP.sub(lambda m: m[1] + help_text(m[2].split()) + m[3], page)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
