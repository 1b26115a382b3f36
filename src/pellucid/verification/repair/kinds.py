"""Which kind of operation a step did: what steps are compared within."""

from collections.abc import Sequence

from pellucid.verification.chains.alignment import align

OPERATORS = frozenset(("+", "-", "*", "and", "or", "xor", "not"))
OTHER = ""


def kind_of(before: Sequence[str], after: Sequence[str]) -> str:
    """The operator that a step reduced and its number of operands, such as `+2` or `-1`.

    Nothing is executed. A step that rewrote more than one operation, or none, is of kind "".

    Args:
        before: words of the expression that the step rewrites.
        after: words of the step.
    """
    if not before or not after:
        return OTHER
    start, stop = align(before, after).before
    start, stop = _parenthesised(before, start, stop)
    inside = [word for word in before[start:stop] if word not in "()"]
    operators = [word for word in inside if word in OPERATORS]
    operands = len(inside) - len(operators)
    return f"{operators[0]}{operands}" if len(operators) == 1 else OTHER


def _parenthesised(words: Sequence[str], start: int, stop: int) -> tuple[int, int]:
    """The smallest pair of parentheses around a range that holds no other; else the range.

    Where the value repeats an operand, the two texts agree inside the parentheses too.
    """
    first = start
    while first >= 0 and words[first] != "(":
        first -= 1
    last = max(stop - 1, first + 1)
    while last < len(words) and words[last] != ")":
        last += 1
    if first < 0 or last >= len(words) or "(" in words[first + 1 : last]:
        return start, stop
    return first, last + 1
