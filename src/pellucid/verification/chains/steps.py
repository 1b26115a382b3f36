"""A chain of thought cut into steps, each labelled by execution.

`( ( 3 + 4 ) * 2 ) = ( 7 * 2 ) = 14 .` is a question and two steps. Two labels a step: local, is it
a correct rewriting of the expression before it; global, has it still the value of the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pellucid.core.errors import DataError
from pellucid.verification.chains.errors import ErrorKind, judge, read_or_none
from pellucid.verification.chains.expressions import Language, parse

EQUALS, END = "=", "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One expression of a chain after the first.

    Attributes:
        number: 0 for the first step.
        start, stop: half-open token range of its expression in the chain.
        expression: its tokens.
        local: whether it is a correct rewriting of the expression before it.
        whole: whether its value is the question's (the global label).
        first_error: whether it is the chain's first locally wrong step.
        error: what kind of error it is (see `errors.judge`), None where it is locally right.
    """

    number: int
    start: int
    stop: int
    expression: tuple[str, ...]
    local: bool
    whole: bool
    first_error: bool
    error: ErrorKind | None


@dataclass(frozen=True, slots=True)
class Chain:
    """A question, the steps that follow it, and whether it came to a value and an end.

    Attributes:
        question: tokens of the first expression.
        steps: in order.
        finished: whether the last expression is one value, followed by the end mark.
    """

    question: tuple[str, ...]
    steps: tuple[Step, ...]
    finished: bool

    @property
    def right(self) -> bool:
        """Whether it ends in the question's value."""
        return self.finished and self.steps[-1].whole

    def until_error(self) -> tuple[Step, ...]:
        """Steps through the first wrong one (strict truncation)."""
        stop = next((each.number + 1 for each in self.steps if not each.local), len(self.steps))
        return self.steps[:stop]


def read_chain(language: Language, tokens: Sequence[str]) -> Chain:
    """Cut a chain into labelled steps.

    Args:
        language: of its expressions.
        tokens: the whole chain; what stands after the end mark is ignored.

    Raises:
        DataError: the question is no expression, or no step follows it.
    """
    parts, ended = expression_ranges(tokens)
    question = list(tokens[slice(*parts[0])])
    before = parse(language, question)
    if len(parts) < 2:
        raise DataError(
            f"the chain {' '.join(question)[:80]!r} has no complete step; generate more tokens"
        )
    truth, steps, wrong, last = language.value(before), [], False, list(question)
    for number, (start, stop) in enumerate(parts[1:]):
        expression = list(tokens[start:stop])
        node = read_or_none(language, expression)
        error = judge(language, last, expression)
        steps.append(
            Step(
                number=number,
                start=start,
                stop=stop,
                expression=tuple(expression),
                local=error is None,
                whole=node is not None and language.value(node) == truth,
                first_error=error is not None and not wrong,
                error=error,
            )
        )
        wrong, last = wrong or error is not None, expression
    return Chain(tuple(question), tuple(steps), ended and steps[-1].stop - steps[-1].start == 1)


def expression_ranges(tokens: Sequence[str]) -> tuple[list[tuple[int, int]], bool]:
    """Half-open ranges of the expressions of a chain, and whether its end mark is there.

    An expression after which no mark stands yet is not complete and left out, but the first is not.

    Args:
        tokens: the whole chain; what stands after the end mark is ignored.
    """
    ended = END in tokens
    stop = tokens.index(END) if ended else len(tokens)
    marks = [n for n, token in enumerate(tokens[:stop]) if token == EQUALS]
    parts = [(a + 1, b) for a, b in pairwise([-1, *marks, stop])]
    return (parts if ended or len(parts) == 1 else parts[:-1]), ended
