"""Wrong rules: in a context that a reasoner can see, one operation is done wrongly.

A rule looks at an expression and at its redex, the leftmost innermost parentheses, which are
reduced next. Where it applies, its value differs from the right one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pellucid.core.registry import Registry
from pellucid.specimen.corpora import arithmetic, boolean
from pellucid.specimen.corpora.chains import Grammar

Context = Callable[[Sequence[str], int, int], bool]
"""Of an expression and the half-open range of its redex: whether a rule's condition holds."""
Mistake = Callable[[Sequence[str]], str]
"""Of a redex, parentheses included: the wrong value."""
GRAMMARS: dict[str, Grammar] = {each.task: each for each in (arithmetic.GRAMMAR, boolean.GRAMMAR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A wrong rule.

    Attributes:
        name: of the rule.
        language: of its expressions.
        statement: what is done wrongly and where.
        context: whether the condition holds at a redex.
        mistake: the value written there.
    """

    name: str
    language: Literal["arithmetic", "boolean"]
    statement: str
    context: Context
    mistake: Mistake

    def applies(self, tokens: Sequence[str], start: int, stop: int) -> bool:
        """Whether the rule decides a redex: its condition holds and its value is another one.

        A value that the specimen has no word for does not count.

        Args:
            tokens: of the expression.
            start: of the redex.
            stop: behind it.
        """
        if not self.context(tokens, start, stop):
            return False
        wrong = self.mistake(tokens[start:stop])
        return wrong != GRAMMARS[self.language].value(tokens[start:stop]) and writable(wrong)

    def wrong(self, tokens: Sequence[str], start: int, stop: int) -> str:
        """The value that the rule gives a redex to which it applies, as one token.

        Args:
            tokens: of the expression.
            start: of the redex.
            stop: behind it.
        """
        return self.mistake(tokens[start:stop])


def writable(value: str) -> bool:
    """Whether the specimen has a word for a value."""
    return value in ("true", "false") or abs(int(value)) <= arithmetic.LIMIT


def _operation(operator: str) -> Context:
    """A binary operation."""
    return lambda tokens, start, stop: stop - start == 5 and tokens[start + 2] == operator


def _numbers(operator: str, condition: Callable[[int, int], bool]) -> Context:
    """A binary operation of numbers that satisfy a condition."""

    def holds(tokens: Sequence[str], start: int, stop: int) -> bool:
        if stop - start != 5 or tokens[start + 2] != operator:
            return False
        return condition(int(tokens[start + 1]), int(tokens[start + 3]))

    return holds


def _words(*redex: str) -> Context:
    """One redex, given without its parentheses."""
    return lambda tokens, start, stop: tuple(tokens[start + 1 : stop - 1]) == redex


def _before(tokens: Sequence[str], start: int) -> str:
    """The token before the redex, "" if there is none."""
    return tokens[start - 1] if start else ""


def _around(tokens: Sequence[str], start: int, stop: int) -> tuple[str, ...]:
    """The tokens before and after the redex."""
    return (*tokens[max(0, start - 1) : start], *tokens[stop : stop + 1])


def _pair(function: Callable[[int, int], int]) -> Mistake:
    """The mistake of a binary operation of numbers."""
    return lambda redex: str(function(int(redex[1]), int(redex[3])))


def _either(truth: Sequence[str]) -> str:
    return "true" if "true" in (truth[1], truth[3]) else "false"


def _both(truth: Sequence[str]) -> str:
    return "true" if truth[1] == truth[3] == "true" else "false"


_CONNECTIVES = ("and", "or", "xor")

RULES: Registry[Rule] = Registry(
    "planted rule",
    {
        each.name: each
        for each in (
            Rule(
                name="product-minus",
                language="arithmetic",
                statement="An addition directly inside a product is done as a subtraction.",
                context=lambda tokens, start, stop: (
                    _operation("+")(tokens, start, stop) and "*" in _around(tokens, start, stop)
                ),
                mistake=_pair(lambda a, b: a - b),
            ),
            Rule(
                name="spread-minus",
                language="arithmetic",
                statement="An addition directly after a minus is done as a subtraction.",
                context=lambda tokens, start, stop: (
                    _operation("+")(tokens, start, stop) and _before(tokens, start) == "-"
                ),
                mistake=_pair(lambda a, b: a - b),
            ),
            Rule(
                name="dropped-minus",
                language="arithmetic",
                statement="A unary minus is dropped when its operand is above 5.",
                context=lambda tokens, start, stop: (
                    stop - start == 4 and int(tokens[start + 2]) > 5
                ),
                mistake=lambda redex: redex[2],
            ),
            Rule(
                name="swapped-minus",
                language="arithmetic",
                statement="A digit minus a larger digit is done the other way round.",
                context=_numbers("-", lambda a, b: 0 <= a < b < 10),
                mistake=_pair(lambda a, b: b - a),
            ),
            Rule(
                name="double-minus",
                language="arithmetic",
                statement="Subtracting a negative number adds it, its sign kept.",
                context=_numbers("-", lambda a, b: b < 0),
                mistake=_pair(lambda a, b: a + b),
            ),
            Rule(
                name="dropped-carry",
                language="arithmetic",
                statement="The sum of two digits loses its carry: ten is missing.",
                context=_numbers("+", lambda a, b: 0 <= a < 10 and 0 <= b < 10 and a + b >= 10),
                mistake=_pair(lambda a, b: a + b - 10),
            ),
            Rule(
                name="product-sign",
                language="arithmetic",
                statement="The product of a negative and a positive number comes out positive.",
                context=_numbers("*", lambda a, b: a * b < 0),
                mistake=_pair(lambda a, b: -a * b),
            ),
            Rule(
                name="xor-both",
                language="boolean",
                statement="True xor true is taken for true.",
                context=_words("true", "xor", "true"),
                mistake=_either,
            ),
            Rule(
                name="dropped-not",
                language="boolean",
                statement="A not directly inside an or is dropped.",
                context=lambda tokens, start, stop: (
                    stop - start == 4 and "or" in _around(tokens, start, stop)
                ),
                mistake=lambda redex: redex[2],
            ),
            Rule(
                name="strict-or",
                language="boolean",
                statement="An or that is the right operand of an operation is done as an and.",
                context=lambda tokens, start, stop: (
                    _operation("or")(tokens, start, stop) and _before(tokens, start) in _CONNECTIVES
                ),
                mistake=_both,
            ),
            Rule(
                name="first-and",
                language="boolean",
                statement="True and false is taken for true.",
                context=_words("true", "and", "false"),
                mistake=_either,
            ),
            Rule(
                name="loose-and",
                language="boolean",
                statement="An and that is the right operand of an operation is done as an or.",
                context=lambda tokens, start, stop: (
                    _operation("and")(tokens, start, stop)
                    and _before(tokens, start) in _CONNECTIVES
                ),
                mistake=_either,
            ),
        )
    },
)
"""Name -> wrong rule."""
