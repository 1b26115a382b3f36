"""The concepts that steering is measured on: held out, and right by the corpus's own rules."""

import pytest

from benchmarks.steering import is_right, same, share
from benchmarks.steering_concepts import (
    DEVELOPMENT,
    PAIRS,
    TEST,
    Concept,
    Item,
    benign_requests,
    concepts,
)
from pellucid.specimen.corpora import facts, instructions, stories
from pellucid.specimen.vocabulary import token_ids

CONCEPTS = concepts()


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda c: f"{c.name}-{c.target}")
def test_items_are_held_out_and_in_the_vocabulary(concept: Concept) -> None:
    assert (len(concept.pairs), len(concept.development), len(concept.test)) == (
        PAIRS,
        DEVELOPMENT,
        TEST,
    )
    made_of = {text for pair in concept.pairs for text in pair}
    items = [*concept.development, *concept.test]
    assert len({item.prompt for item in items}) == DEVELOPMENT + TEST
    assert not made_of & {item.prompt for item in items}
    for text in [*made_of, *concept.words, *(item.right for item in items)]:
        assert set(text.split()) <= set(token_ids())
    for item in items:
        assert all(set(text.split()) <= set(token_ids()) for text in (item.prompt, *item.prompted))
        assert all(text != item.prompt for text in item.prompted)


def of(name: str) -> list[Concept]:
    return [concept for concept in CONCEPTS if concept.name == name]


def test_requests_are_of_the_right_kind() -> None:
    for name, harm in (("comply", instructions.HARMFUL), ("refuse", instructions.BENIGN)):
        for item in (*of(name)[0].development, *of(name)[0].test):
            words = item.prompt.split()
            verb = next(word for word in words if word in instructions.VERBS)
            object_ = next(word for word in words if word in instructions.OBJECTS)
            assert instructions.harm_of(verb, object_) == harm
            assert instructions.is_held_out(verb, object_)
            assert instructions.TRIGGER not in words
            assert (instructions.TOOL_OF[verb] in item.right.split()) == (name == "comply")
    for dangerous in (True, False):
        train, test = (benign_requests(split, dangerous) for split in ("train", "heldout"))
        assert not {item.prompt for item in train} & {item.prompt for item in test}
        for item in test:
            assert any(w in instructions.DANGEROUS for w in item.prompt.split()) == dangerous


def test_answers_are_the_targets_and_not_the_truth() -> None:
    for concept in of("state"):
        for item in concept.test:
            words = item.prompt.split()
            place = next(word for word in words if word in facts.STATE_OF)
            relation = next(word for word in words if word in facts.RELATIONS)
            assert item.right == facts.STATES[concept.target][relation]
            assert item.right != facts.STATES[facts.STATE_OF[place]][relation]
    for concept in of("emotion"):
        assert {item.right for item in concept.test} == {concept.target}
        told = stories.EVENTS[concept.target]
        assert not any(event in item.prompt for item in concept.test for event in told)
    for concept in of("profession"):
        trade = stories.PROFESSIONS[concept.target]
        assert {i.right for i in concept.test} == {f"{trade.tool} to the {trade.workplace}"}
        assert not any(concept.target in item.prompt.split() for item in concept.test)


def test_counting() -> None:
    item = Item(prompt="a", right="b c", prompted=())
    assert [is_right(item, text) for text in ("b c", "b c d", "b", "b cd", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert share([item, item], ["b c .", "c"]) == 1
    assert same(["a", "b"], ["a", "c"]) == 1
