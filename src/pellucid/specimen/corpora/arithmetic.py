"""Arithmetic chains over the operands 0-9 with + - * and unary minus; every value in -99..99."""

from collections.abc import Iterator, Sequence
from random import Random

from pellucid.specimen.corpora import chains
from pellucid.specimen.labels import Document, Split

TASK = "arithmetic"
LIMIT = 99
MAX_NEGATIONS = 2
_NEGATION_SHARE = 0.12


def apply(operator: str, left: int, right: int) -> int:
    """The value of `left operator right`."""
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def expression(rng: Random, operator_count: int) -> list[str]:
    """A random expression with that many binary operators and at most MAX_NEGATIONS negations.

    It grows from its parts' values, so that none leaves the range.
    """
    negations_left = MAX_NEGATIONS

    def grow(count: int) -> tuple[list[str], int]:
        nonlocal negations_left
        if count == 0:
            number = rng.randrange(10)
            tokens = [str(number)]
        else:
            left_count = rng.randrange(count)
            left, left_number = grow(left_count)
            right, right_number = grow(count - 1 - left_count)
            numbers = {op: apply(op, left_number, right_number) for op in "+-*"}
            operator = rng.choice([op for op, n in numbers.items() if abs(n) <= LIMIT])
            number = numbers[operator]
            tokens = ["(", *left, operator, *right, ")"]
        if negations_left and rng.random() < _NEGATION_SHARE:
            negations_left -= 1
            return ["(", "-", *tokens, ")"], -number
        return tokens, number

    return grow(operator_count)[0]


def value(redex: Sequence[str]) -> str:
    """The value of `( a op b )` or `( - a )`, as one token."""
    if len(redex) == 4:
        return str(-int(redex[2]))
    return str(apply(redex[2], int(redex[1]), int(redex[3])))


GRAMMAR = chains.Grammar(
    task=TASK,
    operators={
        ("+", True): "add",
        ("-", True): "subtract",
        ("*", True): "multiply",
        ("-", False): "negate",
    },
    expression=expression,
    value=value,
)


def document(rng: Random, split: Split) -> Document:
    """One chain."""
    return chains.document(GRAMMAR, rng, split)


def words() -> Iterator[str]:
    """Every word of the task."""
    yield from ("(", ")", "+", "-", "*", "=", ".")
    yield from (str(value) for value in range(-LIMIT, LIMIT + 1))
