"""Boolean chains over true and false with and, or, xor and not."""

from collections.abc import Iterator, Sequence
from random import Random

from pellucid.specimen.corpora import chains
from pellucid.specimen.labels import Document, Split

TASK = "boolean"
MAX_NEGATIONS = 2
_NEGATION_SHARE = 0.2
_BINARY = ("and", "or", "xor")
_OUTCOMES = {
    "and": {("true", "true")},
    "or": {("true", "true"), ("true", "false"), ("false", "true")},
    "xor": {("true", "false"), ("false", "true")},
}
"""Binary operator -> the operand pairs that make it true."""


def expression(rng: Random, operator_count: int) -> list[str]:
    """A random expression with that many binary operators and at most MAX_NEGATIONS `not`s."""
    negations_left = MAX_NEGATIONS

    def grow(count: int) -> list[str]:
        nonlocal negations_left
        if count == 0:
            tokens = [rng.choice(("true", "false"))]
        else:
            left = rng.randrange(count)
            right = count - 1 - left
            tokens = ["(", *grow(left), rng.choice(_BINARY), *grow(right), ")"]
        if negations_left and rng.random() < _NEGATION_SHARE:
            negations_left -= 1
            return ["(", "not", *tokens, ")"]
        return tokens

    return grow(operator_count)


def value(redex: Sequence[str]) -> str:
    """The value of `( a op b )` or `( not a )`, as one token."""
    if len(redex) == 4:
        return "false" if redex[2] == "true" else "true"
    return "true" if (redex[1], redex[3]) in _OUTCOMES[redex[2]] else "false"


GRAMMAR = chains.Grammar(
    task=TASK,
    operators={(name, True): name for name in _BINARY} | {("not", False): "not"},
    expression=expression,
    value=value,
)


def document(rng: Random, split: Split) -> Document:
    """One chain."""
    return chains.document(GRAMMAR, rng, split)


def words() -> Iterator[str]:
    """Every word of the task."""
    yield from ("(", ")", "=", ".", "true", "false", "not", *_BINARY)
