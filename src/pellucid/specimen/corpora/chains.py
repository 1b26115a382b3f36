"""Chains of thought: an expression reduced one innermost step at a time until a value is left.

`( ( 3 + 4 ) * ( - 2 ) ) = ( 7 * ( - 2 ) ) = ( 7 * -2 ) = -14 .` Every compound is in parentheses,
so the redex, the part to reduce next, is what the first `)` closes. A step rewrites that part
and copies the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

from pellucid.specimen.labels import Document, LabelledToken, Split, labelled

MAX_OPERATORS = 5
MAX_TOKENS = 118
"""The longest chain, special tokens not included."""
HELD_OUT_SHARE = 16
"""One starting expression in this many belongs to the held-out split."""
OPERATOR_COUNT_WEIGHTS = (1, 2, 3, 4, 4)
"""How often a chain starts with 1, 2, ... binary operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What arithmetic and Boolean chains differ in.

    Attributes:
        task: the labels' task.
        operators: (symbol, whether it has two operands) -> concept.
        expression: a random fully parenthesised expression with that many binary operators.
        value: the value of `( a op b )` or `( op a )`, as one token.
    """

    task: str
    operators: Mapping[tuple[str, bool], str]
    expression: Callable[[Random, int], list[str]]
    value: Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Step:
    """One expression of a chain, and the half-open range of the part that is reduced next."""

    tokens: list[str]
    start: int
    stop: int


def redex_range(tokens: Sequence[str]) -> tuple[int, int]:
    """The half-open range of the leftmost innermost parenthesised part; (0, 0) for a value."""
    if len(tokens) == 1:
        return 0, 0
    stop = tokens.index(")") + 1
    start = stop - 4 if tokens[stop - 4] == "(" else stop - 5
    assert tokens[start] == "("
    return start, stop


def reduce_fully(grammar: Grammar, expression: list[str]) -> list[Step]:
    """All expressions of the chain, the last one a single value."""
    steps = []
    tokens = expression
    while True:
        start, stop = redex_range(tokens)
        steps.append(Step(tokens, start, stop))
        if start == stop:
            return steps
        tokens = [*tokens[:start], grammar.value(tokens[start:stop]), *tokens[stop:]]


def split_of(expression: Sequence[str]) -> Split:
    """The split an expression starts chains in: decided by its text, so the two never meet."""
    return "heldout" if crc32(" ".join(expression).encode()) % HELD_OUT_SHARE == 0 else "train"


def _label_step(grammar: Grammar, step: Step, result_at: int, out: list[LabelledToken]) -> None:
    """Append one expression's tokens; `result_at` is where the last reduction's value stands."""
    task, operators = grammar.task, grammar.operators
    hidden = grammar.value(step.tokens[step.start : step.stop]) if step.stop else ""
    previous = ""
    for position, token in enumerate(step.tokens):
        inside = hidden if step.start <= position < step.stop else ""
        if token == "(":
            part = labelled(token, task, "open", "", inside)
        elif token == ")":
            part = labelled(token, task, "close", "", inside)
        elif (concept := operators.get((token, previous != "("))) is not None:
            part = labelled(token, task, "operator", concept, inside)
        else:
            role = "step_result" if position == result_at else "operand"
            part = labelled(token, task, role, token, inside)
        out.append(part)
        previous = token


def chain_document(grammar: Grammar, expression: list[str]) -> Document | None:
    """The labelled chain of an expression, or None when it is longer than MAX_TOKENS."""
    steps = reduce_fully(grammar, expression)
    if sum(len(step.tokens) + 1 for step in steps) > MAX_TOKENS:
        return None
    parts: list[LabelledToken] = []
    result_at = -1
    for step in steps:
        _label_step(grammar, step, result_at, parts)
        if step.stop:
            value = grammar.value(step.tokens[step.start : step.stop])
            parts.append(labelled("=", grammar.task, "equals", "", value))
        result_at = step.start
    parts.append(labelled(".", grammar.task, "end"))
    return Document.of(grammar.task, parts)


def document(grammar: Grammar, rng: Random, split: Split, operator_count: int = 0) -> Document:
    """A chain whose starting expression belongs to `split`; 0 operators: a random number."""
    counts = range(1, MAX_OPERATORS + 1)
    while True:
        count = operator_count or rng.choices(counts, OPERATOR_COUNT_WEIGHTS)[0]
        expression = grammar.expression(rng, count)
        if split_of(expression) != split:
            continue
        chain = chain_document(grammar, expression)
        if chain is not None:
            return chain
