"""Chains re-executed by Python itself, which knows nothing of our reductions."""

import re
from itertools import pairwise
from random import Random

import pytest

from pellucid.specimen.corpora import arithmetic, boolean, chains
from pellucid.specimen.labels import Document
from pellucid.specimen.mixture import sample_documents

TASKS = ("arithmetic", "boolean")
GRAMMARS = {"arithmetic": arithmetic.GRAMMAR, "boolean": boolean.GRAMMAR}


def evaluated(expression: str) -> int | bool:
    """The value by Python's own parser and operators."""
    if not re.search("true|false", expression):
        return eval(expression)
    for word, symbol in {"true": "True", "false": "False", "xor": "!="}.items():
        expression = re.sub(rf"\b{word}\b", symbol, expression)
    return eval(expression)


def expressions(chain: Document) -> list[str]:
    text = " ".join(chain.tokens)
    assert text.endswith(" .")
    return text.removesuffix(" .").split(" = ")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_step_has_the_value_of_the_first(task: str, split: str) -> None:
    for chain in sample_documents(11, 300, task, split=split):
        values = [evaluated(expression) for expression in expressions(chain)]
        assert len(set(values)) == 1, chain.text


@pytest.mark.parametrize("task", TASKS)
def test_a_step_rewrites_the_leftmost_innermost_part_only(task: str) -> None:
    """Found independently by regular expression: the first parentheses without inner ones."""
    for chain in sample_documents(12, 300, task):
        steps = expressions(chain)
        for before, after in pairwise(steps):
            redex = re.search(r"\([^()]*\)", before)
            assert redex is not None
            value = str(evaluated(redex[0])).lower()
            assert after == before[: redex.start()] + value + before[redex.end() :]
        assert len(steps[-1].split()) == 1


def test_operands_values_and_lengths_stay_in_range() -> None:
    operator_counts = set()
    for chain in sample_documents(13, 2000, "arithmetic"):
        first = expressions(chain)[0]
        operands = [token for token in first.split() if token.isdigit()]
        assert all(0 <= int(token) <= 9 for token in operands)
        operator_counts.add(len(operands) - 1)
        numbers = [int(t) for t in chain.tokens if t.lstrip("-").isdigit()]
        assert all(abs(n) <= 99 for n in numbers)
        assert len(chain.tokens) <= chains.MAX_TOKENS
    assert operator_counts == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("task", TASKS)
def test_no_expression_starts_chains_in_both_splits(task: str) -> None:
    first = {
        split: {expressions(c)[0] for c in sample_documents(14, 4000, task, split=split)}
        for split in ("train", "heldout")
    }
    assert not first["train"] & first["heldout"]
    assert min(len(found) for found in first.values()) > 500


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("task", TASKS)
def test_asked_for_operators_are_delivered(task: str, count: int) -> None:
    binary = {s for (s, has_two), _ in GRAMMARS[task].operators.items() if has_two}
    for seed in range(50):
        chain = chains.document(GRAMMARS[task], Random(seed), "heldout", count)
        first = expressions(chain)[0].split()
        found = [t for i, t in enumerate(first) if t in binary and first[i - 1] != "("]
        assert len(found) == count


def test_labels_name_the_redex_the_operators_and_the_results() -> None:
    expression = "( ( 3 - 4 ) * ( - 2 ) )"
    chain = chains.chain_document(arithmetic.GRAMMAR, expression.split())
    assert chain is not None
    assert chain.text == "( ( 3 - 4 ) * ( - 2 ) ) = ( -1 * ( - 2 ) ) = ( -1 * -2 ) = 2 ."
    described = list(zip(chain.tokens, chain.labels, strict=True))
    redex = [(t, label.role, label.concept) for t, label in described[1:6]]
    assert redex == [
        ("(", "open", ""),
        ("3", "operand", "3"),
        ("-", "operator", "subtract"),
        ("4", "operand", "4"),
        (")", "close", ""),
    ]
    assert [label.hidden for _, label in described[:12]] == ["", *["-1"] * 5, *[""] * 6]
    assert described[8][1].concept == "negate"
    assert [(t, x.hidden) for t, x in described if x.role == "equals"] == [
        ("=", "-1"),
        ("=", "-2"),
        ("=", "2"),
    ]
    results = [t for t, label in described if label.role == "step_result"]
    assert results == ["-1", "-2", "2"]


def test_chains_that_are_too_long_are_left_out() -> None:
    deep = "( " * 9 + "1" + " + 1 )" * 9
    assert chains.chain_document(arithmetic.GRAMMAR, deep.split()) is None
