"""Which part of an expression a step rewrote, by comparing the two texts alone."""

from collections.abc import Sequence
from typing import NamedTuple


class Rewriting(NamedTuple):
    """Half-open token ranges: `before` became `after`; what is around them was copied."""

    before: tuple[int, int]
    after: tuple[int, int]


def align(before: Sequence[str], after: Sequence[str]) -> Rewriting:
    """The smallest ranges outside of which the two agree, from the left and from the right.

    No arithmetic is done: a verifier may use it. Of `( ( 3 + 4 ) * 2 )` and `( 7 * 2 )` it gives
    (1, 6) and (1, 2). The range of `after` is never empty: of a part that vanished, it is the
    token that came to stand there.
    """
    shorter = min(len(before), len(after))
    head = 0
    while head < shorter - 1 and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < shorter - head - 1 and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    return Rewriting((head, len(before) - tail), (head, len(after) - tail))
