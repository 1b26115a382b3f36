"""Wrong rules and the chains of a reasoner who follows them."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError
from pellucid.specimen.corpora.chains import redex_range, split_of
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.steps import read_chain
from pellucid.verification.planted.reasoner import draw_chain, follow, held_out_questions, redex
from pellucid.verification.planted.rules import GRAMMARS, RULES

CASES = {
    "product-minus": [
        ("( 2 * ( 3 + 4 ) )", "-1"),
        ("( ( 3 + 4 ) * 2 )", "-1"),
        ("( 2 * ( 3 + 0 ) )", None),  # the same value
        ("( 2 + ( 3 + 4 ) )", None),
        ("( 2 * ( 3 - 4 ) )", None),
        ("( 2 * ( - ( 3 + 4 ) ) )", None),
        ("( 3 + 4 )", None),
    ],
    "spread-minus": [
        ("( 9 - ( 3 + 4 ) )", "-1"),
        ("( - ( 3 + 4 ) )", "-1"),
        ("( ( 3 + 4 ) - 9 )", None),
        ("( 9 - ( 3 * 4 ) )", None),
    ],
    "dropped-minus": [
        ("( - 6 )", "6"),
        ("( 1 + ( - 42 ) )", "42"),
        ("( - 5 )", None),
        ("( - -7 )", None),
        ("( 1 - 7 )", None),
    ],
    "swapped-minus": [
        ("( 2 - 5 )", "3"),
        ("( 5 - 2 )", None),
        ("( 2 - 10 )", None),
        ("( -2 - 5 )", None),
    ],
    "double-minus": [
        ("( 5 - -2 )", "3"),
        ("( -5 - -2 )", "-7"),
        ("( 5 - 2 )", None),
        ("( 5 + -2 )", None),
        ("( -60 - -60 )", None),  # -120 has no word
    ],
    "dropped-carry": [
        ("( 7 + 5 )", "2"),
        ("( 5 + 5 )", "0"),
        ("( 4 + 5 )", None),
        ("( 10 + 5 )", None),
        ("( 7 * 5 )", None),
    ],
    "product-sign": [
        ("( -3 * 4 )", "12"),
        ("( 3 * -4 )", "12"),
        ("( -3 * -4 )", None),
        ("( 0 * -4 )", None),
    ],
    "xor-both": [
        ("( true xor true )", "true"),
        ("( false xor false )", None),
        ("( true and true )", None),
    ],
    "dropped-not": [
        ("( false or ( not true ) )", "true"),
        ("( ( not false ) or true )", "false"),
        ("( false and ( not true ) )", None),
        ("( not true )", None),
        ("( not ( false or true ) )", None),
    ],
    "strict-or": [
        ("( true and ( true or false ) )", "false"),
        ("( true and ( true or true ) )", None),
        ("( not ( true or false ) )", None),
        ("( ( true or false ) and true )", None),
    ],
    "first-and": [("( true and false )", "true"), ("( false and true )", None)],
    "loose-and": [
        ("( true or ( true and false ) )", "true"),
        ("( true or ( false and false ) )", None),
        ("( ( true and false ) or true )", None),
    ],
}


@pytest.mark.parametrize("name", list(RULES))
def test_rules_apply_where_they_say(name: str) -> None:
    rule = RULES[name]
    assert rule.name == name and rule.statement.endswith(".")
    for text, expected in CASES[name]:
        tokens = text.split()
        where = redex_range(tokens)
        assert rule.applies(tokens, *where) == (expected is not None), text
        if expected is not None:
            assert rule.wrong(tokens, *where) == expected, text


@pytest.mark.parametrize("name", list(RULES))
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), operators=st.integers(1, 5))
def test_exactly_the_steps_of_the_rule_are_wrong(name: str, seed: int, operators: int) -> None:
    rule = RULES[name]
    chain = draw_chain(rule, Random(seed), [operators], "train")
    read = read_chain(LANGUAGES[rule.language], chain.tokens)
    assert read.finished
    assert tuple(step.number for step in read.steps if not step.local) == chain.steps
    for number, place in zip(chain.steps, chain.wrong, strict=True):
        step = read.steps[number]
        assert step.start <= place < step.stop
        before = read.steps[number - 1].expression if number else read.question
        start, stop = redex_range(before)
        assert chain.tokens[place] == rule.wrong(before, start, stop)
        right = GRAMMARS[rule.language].value(before[start:stop])
        mended = list(step.expression)
        mended[place - step.start] = right
        assert mended == [*before[:start], right, *before[stop:]]


@pytest.mark.parametrize("name", list(RULES))
def test_rules_apply_in_a_good_part_of_the_chains(name: str) -> None:
    rng, rule = Random(0), RULES[name]
    chains = [draw_chain(rule, rng, (3, 4, 5), "train") for _ in range(1000)]
    assert 0.17 <= sum(bool(chain.wrong) for chain in chains) / len(chains) <= 0.45


def test_chains_that_leave_the_vocabulary_are_none() -> None:
    rule = RULES["dropped-minus"]
    for text, is_chain in (
        ("( ( 9 * ( - 9 ) ) + ( 9 * 3 ) )", False),
        ("( ( 9 * ( - 5 ) ) + ( 9 * 3 ) )", True),
    ):
        assert (follow(rule, text.split()) is not None) == is_chain


def test_chains_can_be_asked_to_have_the_rule_or_not() -> None:
    rng, rule = Random(1), RULES["first-and"]
    assert draw_chain(rule, rng, (3,), "train", applied=True).wrong
    assert not draw_chain(rule, rng, (3,), "train", applied=False).wrong


def test_held_out_questions_are_distinct_and_held_out() -> None:
    questions = held_out_questions(RULES["dropped-carry"], (3, 5), 30, seed=0)
    assert len(set(questions)) == 30
    assert {split_of(question) for question in questions} == {"heldout"}
    assert all(3 <= question.count("(") <= 5 + 2 for question in questions)  # 2 negations


@pytest.mark.parametrize(
    "text, expected",
    [
        ("( 2 * ( 3 + 4 ) )", (3, 8)),
        ("( - 4 )", (0, 4)),
        ("7", None),
        ("2 * 3", None),
        ("( ( 2 * 3 ) )", None),
        ("( 2 * 3 + 4 )", None),
        ("( 2 * - 3 )", None),
        ("( 2 * ( 4 ) )", None),
        ("( 2 *", None),
        ("", None),
    ],
)
def test_only_whole_expressions_have_a_redex(text: str, expected: tuple[int, int] | None) -> None:
    assert redex(RULES["dropped-minus"], text.split()) == expected


def test_unknown_rules_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown planted rule 'x'; use one of product-minus"):
        RULES["x"]
