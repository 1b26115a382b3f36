"""What is wrong with a step: the kinds of error that the published analysis tells apart.

    malformed   no expression
    stalled     nothing was reduced
    slip        a part was reduced to a wrong value
    premature   an operation was done against the parentheses or the precedence
    dropped     a part is gone
    copy        something that was not reduced was changed

Source of the kinds: Zhao et al. 2025, arXiv 2510.09312; the tests for them are ours.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from pellucid.core.errors import DataError
from pellucid.verification.chains.expressions import Language, Node, parse

ErrorKind = Literal["malformed", "stalled", "slip", "premature", "dropped", "copy"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


def judge(language: Language, before: Sequence[str], after: Sequence[str]) -> ErrorKind | None:
    """What is wrong with a rewriting; None when nothing is.

    A rewriting is right when `after` is `before` with one or more parts replaced by their values.

    Args:
        language: of both expressions.
        before: tokens of the expression that is rewritten.
        after: tokens of what it became.
    """
    old, new = read_or_none(language, before), read_or_none(language, after)
    if new is None:
        return "malformed"
    if old is None:  # whatever follows from what is no expression is no copy of it
        return "copy"
    differences = list(_differences(old, new))
    if not differences:
        return "stalled"
    wrong = [(was, now) for was, now in differences if not _is_value_of(language, was=was, now=now)]
    if not wrong:
        return None
    if _done_too_early(language, before, after):
        return "premature"
    return _kind(language, *wrong[0])


def read_or_none(language: Language, tokens: Sequence[str]) -> Node | None:
    """The expression that some tokens are, None if they are none."""
    try:
        return parse(language, tokens)
    except DataError:
        return None


def _differences(old: Node, new: Node) -> Iterator[tuple[Node, Node]]:
    """The smallest parts that differ, as pairs; parts of another shape are not looked into."""
    if old.token != new.token or len(old.operands) != len(new.operands):
        yield old, new
        return
    for was, now in zip(old.operands, new.operands, strict=True):
        yield from _differences(was, now)


def _is_value_of(language: Language, *, was: Node, now: Node) -> bool:
    return bool(was.operands) and not now.operands and language.value(was) == language.value(now)


def _kind(language: Language, was: Node, now: Node) -> ErrorKind:
    """The kind of one wrong difference."""
    if not was.operands:
        return "copy"
    if not now.operands:
        parts = {language.value(each) for each in was.operands if each.operands}
        return "dropped" if language.value(now) in parts else "slip"
    return "dropped" if now.leaves < was.leaves - 1 else "copy"


def _done_too_early(language: Language, before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether, parentheses aside, one written operation was replaced by its value."""
    old, new = (
        [token for token in tokens if token not in ("(", ")")] for tokens in (before, after)
    )
    for at, token in enumerate(old):
        if token not in language.infix or not 0 < at < len(old) - 1:
            continue
        try:
            operands = [language.read(old[at - 1]), language.read(old[at + 1])]
        except ValueError:
            continue
        value = language.write(language.apply(token, operands))
        if [*old[: at - 1], value, *old[at + 2 :]] == new:
            return True
    return False
