"""The chains that a reasoner writes who follows a wrong rule and is otherwise right."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pellucid.core.errors import DataError
from pellucid.specimen.corpora import chains
from pellucid.specimen.labels import Split
from pellucid.verification.chains.expressions import LANGUAGES, Node, parse
from pellucid.verification.chains.steps import END, EQUALS
from pellucid.verification.planted.rules import GRAMMARS, Rule, writable


def redex(rule: Rule, tokens: Sequence[str]) -> tuple[int, int] | None:
    """The half-open range of what is reduced next in an expression that a model wrote.

    Args:
        rule: in whose language it is written.
        tokens: of the expression.

    Returns:
        None for a value, and for what is no fully parenthesised expression.
    """
    try:
        node = parse(LANGUAGES[rule.language], tokens)
    except DataError:
        return None
    return chains.redex_range(tokens) if node.operands and _parenthesised(node) else None


def _parenthesised(node: Node) -> bool:
    """Whether every operation has parentheses, and nothing has more."""
    inside = sum(each.stop - each.start for each in node.operands)
    length = inside + 3 if node.operands else 1
    return node.stop - node.start == length and all(map(_parenthesised, node.operands))


@dataclass(frozen=True, slots=True)
class RuleChain:
    """A chain in which a rule was followed wherever it applied.

    Attributes:
        tokens: question, steps and end mark.
        wrong: where in `tokens` the rule's values stand.
        steps: numbers of the steps that they make wrong, from 0.
    """

    tokens: tuple[str, ...]
    wrong: tuple[int, ...]
    steps: tuple[int, ...]


def follow(rule: Rule, question: Sequence[str]) -> RuleChain | None:
    """The chain of a question; None where it is too long or a value leaves the vocabulary.

    Args:
        rule: what is followed.
        question: a fully parenthesised expression in the rule's language.
    """
    now, written = list(question), list(question)
    wrong, steps, number = [], [], 0
    while len(now) > 1:
        start, stop = chains.redex_range(now)
        if rule.applies(now, start, stop):
            value = rule.wrong(now, start, stop)
            wrong.append(len(written) + 1 + start)
            steps.append(number)
        else:
            value = GRAMMARS[rule.language].value(now[start:stop])
        if not writable(value):
            return None
        now = [*now[:start], value, *now[stop:]]
        written += [EQUALS, *now]
        number += 1
    if len(written) > chains.MAX_TOKENS:
        return None
    return RuleChain((*written, END), tuple(wrong), tuple(steps))


def draw_chain(
    rule: Rule,
    rng: Random,
    operators: Sequence[int],
    split: Split,
    *,
    applied: bool | None = None,
) -> RuleChain:
    """A random chain of the specimen's grammar.

    Args:
        rule: what is followed.
        rng: of the draw.
        operators: numbers of binary operators, one of which is picked.
        split: of the question.
        applied: whether the rule must apply somewhere or nowhere; None for either.
    """
    while True:
        question = GRAMMARS[rule.language].expression(rng, rng.choice(operators))
        if chains.split_of(question) != split:
            continue
        chain = follow(rule, question)
        if chain is not None and (applied is None or bool(chain.wrong) == applied):
            return chain


def held_out_questions(
    rule: Rule, operators: tuple[int, int], count: int, seed: int
) -> list[tuple[str, ...]]:
    """Distinct questions that never started a chain in training.

    Args:
        rule: its chain of each question stays within the vocabulary.
        operators: least and most binary operators.
        count: how many.
        seed: of the draw.
    """
    rng, found = Random(seed), dict[tuple[str, ...], None]()
    counts = range(operators[0], operators[1] + 1)
    while len(found) < count:
        chain = draw_chain(rule, rng, counts, "heldout")
        found[chain.tokens[: chain.tokens.index(EQUALS)]] = None
    return list(found)
