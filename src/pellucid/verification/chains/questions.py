"""Questions: expressions drawn by rule, from the specimen's grammars and from the paper's.

The paper's grammar (Zhao et al. 2025): start from one value; so many times replace a random value
by `( a * b )` or `( a + b )` (.4 each) or `( - a )` (.2); for Boolean expressions `and` and `or`
(.4 each) or `not` (.2). Operators of one operand count as well.
"""

from collections.abc import Callable
from random import Random

from pellucid.core.registry import Registry
from pellucid.specimen.corpora import arithmetic, boolean, chains

Drawer = Callable[[Random, int], list[str]]


def _paper(binary: tuple[str, str], unary: str, value: Callable[[Random], str]) -> Drawer:
    def draw(rng: Random, operators: int) -> list[str]:
        tokens = ["N"]
        for _ in range(operators):
            places = [n for n, token in enumerate(tokens) if token == "N"]
            at = rng.choice(places)
            kind = rng.choices((*binary, unary), (0.4, 0.4, 0.2))[0]
            inner = [unary, "N"] if kind == unary else ["N", kind, "N"]
            tokens[at : at + 1] = ["(", *inner, ")"]
        return [value(rng) if token == "N" else token for token in tokens]

    return draw


def _held_out(expression: Drawer) -> Drawer:
    """Only expressions that never started a chain of the specimen's training."""

    def draw(rng: Random, operators: int) -> list[str]:
        while True:
            tokens = expression(rng, operators)
            if chains.split_of(tokens) == "heldout":
                return tokens

    return draw


QUESTIONS: Registry[Drawer] = Registry(
    "grammar",
    {
        "arithmetic": _held_out(arithmetic.expression),
        "boolean": _held_out(boolean.expression),
        "paper-arithmetic": _paper(("*", "+"), "-", lambda rng: str(rng.randrange(10))),
        "paper-boolean": _paper(("and", "or"), "not", lambda rng: rng.choice(("true", "false"))),
    },
)
"""Name -> function of a generator and a number of operators."""


def language_of(grammar: str) -> str:
    """The name of the language that a grammar's expressions belong to."""
    return grammar.removeprefix("paper-")


def draw_questions(
    grammar: str, operators: tuple[int, int], count: int, seed: int
) -> list[tuple[str, ...]]:
    """Distinct questions, the number of operators uniform over a range.

    Args:
        grammar: of `QUESTIONS`.
        operators: least and most operators.
        count: how many; fewer where the grammar has no more (very short ones).
        seed: of the draw.

    Raises:
        ConfigError: an unknown grammar.
    """
    draw, rng = QUESTIONS[grammar], Random(seed)
    found: dict[tuple[str, ...], None] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        found[tuple(draw(rng, rng.randint(*operators)))] = None
    return list(found)
