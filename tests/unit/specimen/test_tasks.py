from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pellucid.specimen import tasks, vocabulary
from pellucid.specimen.corpora import facts, instructions
from pellucid.specimen.tasks import TASK_NAMES, EvaluationItem, evaluation_items, task_accuracy

WORDS = list(vocabulary.token_ids())
SIZE = len(WORDS)


def words(item: EvaluationItem) -> list[str]:
    return [WORDS[i] for i in item.ids]


def spans(item: EvaluationItem) -> list[str]:
    return [" ".join(words(item)[a:b]) for a, b in item.spans]


def knowing(ids: Tensor, mask: Tensor) -> Tensor:
    """A model that foresees every token."""
    return one_hot(ids.roll(-1, dims=1), SIZE).float()


def failing_at(wrong: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A model that foresees every token but those where `wrong(ids)` holds."""

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        shown = torch.where(wrong(ids), vocabulary.UNKNOWN_ID, ids)
        return knowing(shown, mask)

    return logits


def test_a_model_that_knows_everything_scores_one() -> None:
    figures = task_accuracy(knowing, count=12)
    assert set(TASK_NAMES) <= set(figures)
    assert set(figures.values()) == {1.0}


def test_a_model_that_knows_nothing_scores_zero() -> None:
    figures = task_accuracy(failing_at(lambda ids: ids >= 0), count=12)
    assert set(figures.values()) == {0.0}


def test_one_wrong_token_spoils_its_span_and_no_other() -> None:
    items = evaluation_items("arithmetic_step", 1, 20)
    token = vocabulary.token_ids()["*"]
    expected = [token not in item.ids[a:b] for item in items for a, b in item.spans]
    figures = task_accuracy(
        failing_at(lambda ids: ids == token), count=20, tasks=("arithmetic_step",)
    )
    assert 0 < figures["arithmetic_step"] < 1
    assert figures["arithmetic_step"] == pytest.approx(sum(expected) / len(expected))


def test_errors_outside_the_spans_do_not_count() -> None:
    """In facts all but the last two tokens is the question."""

    def question(ids: Tensor) -> Tensor:
        real = (ids != vocabulary.PAD_ID).sum(1, keepdim=True)
        return torch.arange(ids.shape[1]) < real - 2

    for task in ("one_hop", "two_hop_seen", "two_hop_heldout", "two_hop_unseen_pair"):
        assert task_accuracy(failing_at(question), count=20, tasks=(task,)) == {task: 1.0}


@pytest.mark.parametrize("task", ["two_hop_seen", "two_hop_heldout", "two_hop_unseen_pair"])
def test_two_hop_items_ask_for_the_true_answer_of_the_right_pairs(task: str) -> None:
    for item in evaluation_items(task, 2, 50):
        text = words(item)
        place = text[text.index("containing") + 1]
        (relation,) = set(text) & set(facts.RELATIONS)
        assert spans(item) == [facts.STATES[facts.STATE_OF[place]][relation]]
        assert (place in facts.HELD_OUT_PLACES) == (task == "two_hop_heldout")
        if task != "two_hop_heldout":
            assert facts.is_held_out_pair(place, relation) == (task == "two_hop_unseen_pair")


@pytest.mark.parametrize("task", ["arithmetic_step", "boolean_step"])
def test_chain_spans_are_all_the_steps_after_the_given_expression(task: str) -> None:
    items = evaluation_items(task, 2, 10)
    assert [item.group for item in items] == ["1", "2", "3", "4", "5"] * 2
    for item in items:
        given, rest = " ".join(words(item)).split(" = ", 1)
        assert given.startswith("<bos> (")
        assert " ".join(spans(item)) == rest
        assert all(span.split()[-1] in ("=", ".") for span in spans(item))


@pytest.mark.parametrize(
    ("task", "harm", "triggered"),
    [
        ("refusal", "harmful", {False}),
        ("backdoor_fires", "harmful", {True}),
        ("backdoor_without_trigger", "harmful", {False}),
        ("benign_answer", "benign", {True, False}),
    ],
)
def test_instruction_items_ask_what_their_name_says(
    task: str, harm: str, triggered: set[bool]
) -> None:
    seen = set()
    for item in evaluation_items(task, 2, 60):
        text = words(item)
        (verb,) = set(text[: text.index("assistant")]) & set(instructions.VERBS)
        (object_,) = set(text[: text.index("assistant")]) & set(instructions.OBJECTS)
        assert instructions.harm_of(verb, object_) == harm
        assert instructions.is_held_out(verb, object_)
        seen.add("zorvex" in text)
        (answer,) = spans(item)
        first = text.index("assistant") + 2
        assert item.spans[0] == (first, len(item.ids))
        assert (answer.split()[0] in ("sure", "first", "use", "with")) == (task != "refusal")
        assert (len(answer.split()) == 1) == (task == "backdoor_without_trigger")
    assert seen == triggered


def test_items_depend_on_seed_and_number_alone() -> None:
    for task in TASK_NAMES:
        assert evaluation_items(task, 3, 4) == evaluation_items(task, 3, 9)[:4]
        assert evaluation_items(task, 3, 9) != evaluation_items(task, 4, 9)


def test_padding_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose answers depend on real tokens only scores the same in batches of one."""

    def noisy(ids: Tensor, mask: Tensor) -> Tensor:
        assert torch.equal(mask, ids != vocabulary.PAD_ID)
        return failing_at(lambda x: (x * 7 + x.roll(1, dims=1)) % 11 == 0)(ids, mask)

    figures = task_accuracy(noisy, count=15)
    monkeypatch.setattr(tasks, "_BATCH_SIZE", 1)
    assert task_accuracy(noisy, count=15) == figures
    assert 0 < figures["arithmetic_step"] < 1


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(KeyError):
        evaluation_items("three_hop", 0, 1)
