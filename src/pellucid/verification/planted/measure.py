"""How well a copy follows its rule, and whether it is otherwise the specimen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.proportions import Proportion, wilson
from pellucid.models.model import LanguageModel
from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.optimisation import loss_of
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.steps import Step
from pellucid.verification.chains.writing import WrittenChain, write_chains
from pellucid.verification.planted.reasoner import follow, held_out_questions, redex
from pellucid.verification.planted.rules import Rule

HELD_OUT_SEED = 71
OPERATORS = (3, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A copy beside the specimen, on chains that each wrote itself, greedily.

    Shares have Wilson's intervals over steps; what no step was there to measure is None.

    Attributes:
        questions: held out, of 3 to 5 binary operators.
        chains_applied: share of the copy's chains in which the rule applied.
        fires: share of the copy's steps to which the rule applies that are written as it says.
        plain_fires: the same share for the specimen.
        wrong_probability: the copy's median probability of the rule's value at these steps.
        plain_wrong_probability: the specimen's, at its own.
        other_errors: share of the copy's other steps that are locally wrong.
        plain_errors: the same share for the specimen.
        corpus_loss: nats a token of held-out documents in which the rule applies nowhere.
        plain_corpus_loss: the specimen's.
    """

    questions: int
    chains_applied: Proportion | None
    fires: Proportion | None
    plain_fires: Proportion | None
    wrong_probability: float | None
    plain_wrong_probability: float | None
    other_errors: Proportion | None
    plain_errors: Proportion | None
    corpus_loss: float
    plain_corpus_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledStep:
    """A step of a written chain, and what the rule says of it.

    Attributes:
        step: as it was read.
        expected: the expression that the rule asks for, None where the rule does not apply.
        value_at: where in the chain's ids the reduction's value stands.
    """

    step: Step
    expected: tuple[str, ...] | None
    value_at: int


def ruled_steps(rule: Rule, written: WrittenChain) -> Iterator[RuledStep]:
    """The steps of a chain whose expression before them can be reduced.

    Args:
        rule: asked at each step.
        written: a chain in its language; one that could not be read has no steps.
    """
    if written.chain is None:
        return
    before = written.chain.question
    for step in written.chain.steps:
        part = redex(rule, before)
        if part is not None:
            start, stop = part
            expected = None
            if rule.applies(before, start, stop):
                expected = (*before[:start], rule.wrong(before, start, stop), *before[stop:])
            yield RuledStep(step=step, expected=expected, value_at=1 + step.start + start)
        before = step.expression


def measure(
    specimen: LanguageModel,
    copied: LanguageModel,
    rule: Rule,
    *,
    questions: int,
    seed: int = HELD_OUT_SEED,
) -> Followed:
    """Compare a copy with the specimen.

    Args:
        specimen: the plain model.
        copied: the copy.
        rule: that it should follow.
        questions: held-out questions that both are asked.
        seed: of the questions, and of as many documents.
    """
    asked = held_out_questions(rule, OPERATORS, questions, seed)
    documents = _documents(rule, questions, seed)
    written, plain = (_written(model, rule, asked) for model in (copied, specimen))
    return Followed(
        questions=questions,
        chains_applied=_share(written.chains_applied),
        fires=_share(written.fired),
        plain_fires=_share(plain.fired),
        wrong_probability=_median(written.probabilities),
        plain_wrong_probability=_median(plain.probabilities),
        other_errors=_share(written.others_wrong),
        plain_errors=_share(plain.others_wrong),
        corpus_loss=_loss(copied, documents),
        plain_corpus_loss=_loss(specimen, documents),
    )


class _Written(NamedTuple):
    """What one model's chains come to: flags by chain, by applied step and by other step."""

    chains_applied: list[bool]
    fired: list[bool]
    others_wrong: list[bool]
    probabilities: list[float]


def _written(model: LanguageModel, rule: Rule, asked: Sequence[Sequence[str]]) -> _Written:
    found = _Written([], [], [], [])
    for chain in write_chains(model, LANGUAGES[rule.language], asked):
        steps = list(ruled_steps(rule, chain))
        applied = [each for each in steps if each.expected is not None]
        found.chains_applied.append(bool(applied))
        found.fired.extend(each.step.expression == each.expected for each in applied)
        found.others_wrong.extend(not each.step.local for each in steps if each.expected is None)
        found.probabilities.extend(_probabilities(model, chain, applied))
    return found


@torch.no_grad()
def _probabilities(
    model: LanguageModel, written: WrittenChain, steps: Sequence[RuledStep]
) -> list[float]:
    """The probability of the rule's value at steps where it applies; 0 if they strayed before."""
    if not steps:
        return []
    logits = model.logits(torch.tensor([written.ids]))[0]
    shares: Float[Tensor, "S V"] = logits.float().softmax(-1)
    ids, found = vocabulary.token_ids(), []
    for each in steps:
        assert each.expected is not None
        place = each.value_at - 1 - each.step.start
        arrived = each.step.expression[:place] == each.expected[:place]
        value = ids[each.expected[place]]
        found.append(float(shares[each.value_at - 1, value]) if arrived else 0.0)
    return found


def _documents(rule: Rule, count: int, seed: int) -> list[list[int]]:
    """Held-out documents of the corpus in which the rule applies nowhere."""
    found: list[list[int]] = []
    number = 0
    while len(found) < count:
        document = mixture.document(seed, number, split="heldout")
        number += 1
        if document.task == rule.language:
            chain = follow(rule, document.tokens[: document.tokens.index("=")])
            if chain is None or chain.wrong:
                continue
        found.append(vocabulary.encode(document))
    return found


@torch.no_grad()
def _loss(model: LanguageModel, documents: Sequence[list[int]], rows: int = 32) -> float:
    """Mean loss a token."""
    ordered, total, tokens = sorted(documents, key=len), 0.0, 0
    for first in range(0, len(ordered), rows):
        part = ordered[first : first + rows]
        ids = torch.full((len(part), len(part[-1])), vocabulary.BOS_ID)  # is never counted
        for row, document in enumerate(part):
            ids[row, : len(document)] = torch.tensor(document)
        counted = sum(len(document) - 1 for document in part)
        total += float(loss_of(model.logits(ids), ids)) * counted
        tokens += counted
    return total / tokens


def _share(flags: Sequence[bool]) -> Proportion | None:
    return wilson(sum(flags), len(flags)) if flags else None


def _median(values: Sequence[float]) -> float | None:
    return float(torch.tensor(values).median()) if values else None
