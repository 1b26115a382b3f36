"""Where a step stands among its chain's tokens, and what every token before it is to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.verification.chains.alignment import align
from pellucid.verification.chains.steps import Chain, Step

Role = Literal["opening", "question", "earlier", "rewritten", "kept", "mark", "step", "answer"]
ROLES: tuple[Role, ...] = get_args(Role)
"""
opening: special first tokens. question: the chain's first expression, unless the step rewrites it.
earlier: steps before the one that it rewrites. rewritten, kept: the expression that it rewrites, by
what the step did with it. mark: what separates steps. step, answer: the step itself, by what it
copied and what it wrote anew.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlace:
    """Token positions, the special first one counted; ranges are half-open.

    Attributes:
        start, stop: the step's tokens.
        answer: those of its tokens that it did not copy; all of them where that is unknown.
        roles: of every position before `stop`.
    """

    start: int
    stop: int
    answer: tuple[int, int]
    roles: tuple[Role, ...]


def places(chain: Chain, opening: int = 1) -> Iterator[tuple[Step, StepPlace]]:
    """Every step of a chain with its place.

    Args:
        chain: as it was read.
        opening: how many special tokens stand before it.
    """
    begin, before = 0, chain.question
    for step in chain.steps:
        rewriting = align(before, step.expression)
        roles: list[Role] = []
        roles.extend("opening" for _ in range(opening))
        roles.extend("earlier" for _ in range(step.start))
        roles.extend("step" for _ in step.expression)
        if step.number:
            _mark(roles, opening, range(len(chain.question)), "question")
        _mark(roles, opening + begin, range(len(before)), "kept")
        _mark(roles, opening + begin, range(*rewriting.before), "rewritten")
        _mark(roles, opening + step.start, range(*rewriting.after), "answer")
        for mark in (step.start - 1, *(each.start - 1 for each in chain.steps[: step.number])):
            roles[opening + mark] = "mark"
        first, last = (opening + step.start + n for n in rewriting.after)
        yield (
            step,
            StepPlace(
                start=opening + step.start,
                stop=opening + step.stop,
                answer=(first, last),
                roles=tuple(roles),
            ),
        )
        begin, before = step.start, step.expression


def _mark(roles: list[Role], offset: int, where: range, role: Role) -> None:
    for position in where:
        roles[offset + position] = role
