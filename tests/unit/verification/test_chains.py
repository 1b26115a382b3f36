"""Chains cut into steps and judged, against hand-made cases and the specimen's own corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import DataError
from pellucid.specimen.mixture import sample_documents
from pellucid.verification.chains.errors import judge
from pellucid.verification.chains.expressions import ARITHMETIC, BOOLEAN, LANGUAGES, parse
from pellucid.verification.chains.steps import read_chain

_numbers = st.integers(0, 9).map(str)
_expressions = st.recursive(
    _numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"( {' '.join(p)} )"),
        inner.map(lambda text: f"( - {text} )"),
    ),
    max_leaves=8,
)


@given(_expressions)
def test_values_are_those_of_python(text: str) -> None:
    assert ARITHMETIC.value(parse(ARITHMETIC, text.split())) == eval(text)


@given(st.lists(st.sampled_from("+-*"), min_size=1, max_size=5), st.data())
def test_precedence_and_grouping_are_those_of_python(
    operators: list[str], data: st.DataObject
) -> None:
    tokens = [data.draw(_numbers)]
    for operator in operators:
        tokens += [operator, *data.draw(st.sampled_from(([], ["-"]))), data.draw(_numbers)]
    assert ARITHMETIC.value(parse(ARITHMETIC, tokens)) == eval(" ".join(tokens))


def test_boolean_precedence_is_and_before_xor_before_or() -> None:
    for text, value in (
        ("true or false and false", True),
        ("not false and false", False),
        ("true xor true or true", True),
    ):
        assert BOOLEAN.value(parse(BOOLEAN, text.split())) is value


@pytest.mark.parametrize("task", list(LANGUAGES))
def test_every_chain_of_the_corpus_is_right(task: str) -> None:
    for made in sample_documents(0, 100, task):
        chain = read_chain(LANGUAGES[task], made.tokens)
        assert chain.right
        assert all(step.local and step.whole and step.error is None for step in chain.steps)
        assert list(made.tokens[chain.steps[0].start : chain.steps[0].stop]) == list(
            chain.steps[0].expression
        )


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("( ( 3 + 4 ) * 2 )", "( 7 * 2 )", None),
        ("( ( 3 + 4 ) * ( 1 + 1 ) )", "( 7 * 2 )", None),
        ("3 + 4 * 2", "3 + 8", None),
        ("( - ( 3 + 4 ) )", "( - 7 )", None),
        ("( ( 3 + 4 ) * 2 )", "( 8 * 2 )", "slip"),
        ("( ( 3 + 4 ) * 2 )", "( 3 + 8 )", "premature"),
        ("3 + 4 * 2", "7 * 2", "premature"),
        ("( ( 3 + 4 ) * 2 )", "7", "dropped"),
        ("( ( 3 + 4 ) * ( 2 + 5 ) )", "( 3 + 4 )", "dropped"),
        ("( ( 3 + 4 ) * 2 )", "( 7 * 3 )", "copy"),
        ("( 3 + 4 )", "( 3 + 4 )", "stalled"),
        ("( 3 + 4 )", "( 7", "malformed"),
    ],
)
def test_kinds_of_error(before: str, after: str, kind: str | None) -> None:
    assert judge(ARITHMETIC, before.split(), after.split()) == kind


def test_labels_are_local_and_global() -> None:
    text = "( ( 3 + 4 ) * 2 ) = ( 8 * 2 ) = 16 . the rest"
    chain = read_chain(ARITHMETIC, text.split())
    assert [(s.local, s.whole, s.first_error) for s in chain.steps] == [
        (False, False, True),
        (True, False, False),
    ]
    assert chain.finished and not chain.right
    assert len(chain.until_error()) == 1


def test_a_chain_that_was_cut_off_keeps_its_complete_steps() -> None:
    text = "( ( 3 + 4 ) * 2 ) = ( 7 * 2 ) = 1"
    chain = read_chain(ARITHMETIC, text.split())
    assert [step.expression for step in chain.steps] == [("(", "7", "*", "2", ")")]
    assert not chain.finished


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("( 3 + = 3 .", "is no expression: reading stopped at its end"),
        ("( 3 + 4 ) =", "has no complete step"),
        ("banana = 3 .", "reading stopped at 'banana'"),
    ],
)
def test_a_chain_that_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_chain(ARITHMETIC, text.split())
