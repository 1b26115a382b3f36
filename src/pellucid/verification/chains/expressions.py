"""Arithmetic and Boolean expressions: reading them from tokens, and their values.

    expression = value | prefix expression | expression infix expression | ( expression )

Parentheses may be left out where precedence decides; operators of one precedence group to the left.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pellucid.core.errors import DataError
from pellucid.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Node:
    """A value (no operator), or an operator and its one or two operands.

    Attributes:
        token: the value or the operator.
        operands: in the order in which they are written.
        start, stop: half-open range of its tokens, its own parentheses included.
    """

    token: str
    operands: "tuple[Node, ...]"
    start: int
    stop: int

    @property
    def leaves(self) -> int:
        """How many values it is made of."""
        return sum(each.leaves for each in self.operands) or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What an expression may be made of.

    Attributes:
        name: of the task.
        read: the meaning of a value's token; raises ValueError for any other token.
        write: the token of a value.
        prefix: operator -> function of one operand.
        infix: operator -> precedence (higher binds closer) and function of two operands.
    """

    name: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    prefix: Mapping[str, Callable[[Any], Any]]
    infix: Mapping[str, tuple[int, Callable[[Any, Any], Any]]]

    def value(self, node: Node) -> Any:
        """The value of an expression."""
        operands = [self.value(each) for each in node.operands]
        return self.apply(node.token, operands) if operands else self.read(node.token)

    def apply(self, operator: str, operands: Sequence[Any]) -> Any:
        """The value of one operation."""
        if len(operands) == 1:
            return self.prefix[operator](operands[0])
        return self.infix[operator][1](operands[0], operands[1])


def _truth(token: str) -> bool:
    truths = {"true": True, "false": False}
    if token.lower() not in truths:
        raise ValueError(token)
    return truths[token.lower()]


ARITHMETIC = Language(
    name="arithmetic",
    read=int,
    write=str,
    prefix=MappingProxyType({"-": lambda a: -a}),
    infix=MappingProxyType(
        {
            "+": (1, lambda a, b: a + b),
            "-": (1, lambda a, b: a - b),
            "*": (2, lambda a, b: a * b),
        }
    ),
)
BOOLEAN = Language(
    name="boolean",
    read=_truth,
    write=lambda value: str(value).lower(),
    prefix=MappingProxyType({"not": lambda a: not a}),
    infix=MappingProxyType(
        {
            "or": (1, lambda a, b: a or b),
            "xor": (2, lambda a, b: a != b),
            "and": (3, lambda a, b: a and b),
        }
    ),
)
LANGUAGES: Registry[Language] = Registry(
    "language", {each.name: each for each in (ARITHMETIC, BOOLEAN)}
)
_TIGHTEST = 9  # prefix operators bind closer than infix ones


def parse(language: Language, tokens: Sequence[str]) -> Node:
    """The expression that some tokens are.

    Raises:
        DataError: they are none, said with the token at which reading stopped.
    """
    node, stop = _expression(language, tokens, 0, 0)
    if stop < len(tokens):
        raise _unreadable(tokens, stop)
    return node


def _expression(
    language: Language, tokens: Sequence[str], start: int, least: int
) -> tuple[Node, int]:
    """The longest expression from `start` whose infix operators bind at least so close."""
    left, at = _operand(language, tokens, start)
    while at < len(tokens) and tokens[at] in language.infix:
        precedence, _ = language.infix[tokens[at]]
        if precedence < least:
            break
        right, stop = _expression(language, tokens, at + 1, precedence + 1)
        left, at = Node(tokens[at], (left, right), left.start, right.stop), stop
    return left, at


def _operand(language: Language, tokens: Sequence[str], start: int) -> tuple[Node, int]:
    if start >= len(tokens):
        raise _unreadable(tokens, start)
    token = tokens[start]
    if token == "(":
        inner, stop = _expression(language, tokens, start + 1, 0)
        if stop >= len(tokens) or tokens[stop] != ")":
            raise _unreadable(tokens, stop)
        return Node(inner.token, inner.operands, start, stop + 1), stop + 1
    if token in language.prefix:
        inner, stop = _expression(language, tokens, start + 1, _TIGHTEST)
        return Node(token, (inner,), start, stop), stop
    try:
        language.read(token)
    except ValueError:
        raise _unreadable(tokens, start) from None
    return Node(token, (), start, start + 1), start + 1


def _unreadable(tokens: Sequence[str], at: int) -> DataError:
    text = " ".join(tokens)
    where = f"at {tokens[at]!r} (token {at})" if at < len(tokens) else "at its end"
    return DataError(f"{text[:80]!r} is no expression: reading stopped {where}; check the chain")
