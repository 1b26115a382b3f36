"""Case (c): the packaged specimen; no truth is known, so circuits are judged by running them."""

from collections.abc import Sequence
from random import Random
from typing import Any

import torch

import pellucid
from benchmarks.ground_truth.basis import Case, from_dictionaries
from benchmarks.ground_truth.judge import judge
from benchmarks.ground_truth.neurons import neurons
from pellucid.models.model import LanguageModel
from pellucid.specimen.corpora.facts import STATE_OF, STATES, two_hop_pairs

BUDGETS = [1, 2, 4, 8, 16, 32, 64, 128, 256]


def run(prompts: int) -> dict[str, Any]:
    """All figures of the case, by task."""
    model = pellucid.load_model("specimen")
    transcoders = from_dictionaries("PLT", pellucid.load_dictionaries("specimen"))
    tasks = {"two-hop": two_hop_questions(), "arithmetic": arithmetic_questions()}
    return {
        task: {
            basis.name: judge(_cases(model, questions, prompts), basis, BUDGETS).summary()
            for basis in (neurons(model), transcoders)
        }
        for task, questions in tasks.items()
    }


def two_hop_questions() -> list[tuple[str, str]]:
    """Questions on pairs held out of the specimen's training, with their answers, shuffled."""
    pairs = [*two_hop_pairs("unseen_pair"), *two_hop_pairs("heldout")]
    Random(0).shuffle(pairs)
    return [
        (
            f"the {relation} of the state containing {place} is",
            STATES[STATE_OF[place]][relation],
        )
        for place, relation in pairs
    ]


def arithmetic_questions() -> list[tuple[str, str]]:
    """`( a op b ) =` for all digits, with the value, shuffled."""
    results = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    questions = [
        (f"( {a} {name} {b} ) =", str(operation(a, b)))
        for name, operation in results.items()
        for a in range(10)
        for b in range(10)
    ]
    Random(0).shuffle(questions)
    return questions


@torch.no_grad()
def _cases(model: LanguageModel, questions: Sequence[tuple[str, str]], count: int) -> list[Case]:
    """The first questions that the model answers right."""
    cases = []
    for text, word in questions:
        ids, answer = model.encode(text), int(model.encode(word)[-1])
        if int(model.logits(ids[None])[0, -1].argmax()) == answer:
            cases.append(Case(model=model, ids=ids, answer=answer))
        if len(cases) == count:
            break
    return cases
