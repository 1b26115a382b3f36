"""Free text cut into steps by rule. No character is lost or repeated: a step is a range of the
text, ranges do not overlap, and what is in none of them is what separates the steps."""

import re

from pellucid.core.errors import ConfigError
from pellucid.core.registry import Registry

PATTERN = "pattern:"

CUTS: Registry[str] = Registry(
    "way to cut a text",
    {
        "lines": r"\n",
        "paragraphs": r"\n[^\S\n]*\n",
        "sentences": r"(?<=[.!?])\s+|\n",
        "numbered": r"(?im)^(?=[^\S\n]*(?:step\s+)?\d+\s*[.:)])",
    },
)
"""Name -> regular expression of what separates steps. `numbered` cuts before lines that begin with
`Step 2:`, `2.` or `2)`."""


def separator(rule: str) -> re.Pattern[str]:
    """The regular expression that separates steps.

    Args:
        rule: of `CUTS`, or `pattern:` and a regular expression.

    Raises:
        ConfigError: an unknown rule, or no regular expression.
    """
    if not rule.startswith(PATTERN):
        return re.compile(CUTS[rule])
    try:
        return re.compile(rule.removeprefix(PATTERN))
    except re.error as error:
        raise ConfigError(f"{rule!r} is no regular expression ({error}); correct it") from None


def cut(text: str, rule: str, *, skip: str | None = None) -> list[tuple[int, int]]:
    r"""Half-open character ranges of the steps of a text, in order; white space trimmed.

    Args:
        text: of the chain.
        rule: see `separator`.
        skip: a regular expression; pieces that it matches as a whole are no steps
            (`####.*` for the final line of GSM8K).

    Raises:
        ConfigError: the rule or `skip` cannot be used.
    """
    between = separator(rule)
    unwanted = None if skip is None else separator(PATTERN + skip)
    ranges, begin = [], 0
    marks = [match.span() for match in between.finditer(text)]
    for start, stop in [*marks, (len(text), len(text))]:
        piece = text[begin:start]
        kept = piece.strip()
        if kept and not (unwanted and unwanted.fullmatch(kept)):
            first = begin + len(piece) - len(piece.lstrip())
            ranges.append((first, first + len(kept)))
        begin = stop
    return ranges
