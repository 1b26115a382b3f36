"""Steps of chains as rows of a table: their labels beside what was read of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import KeptChain, count_operators
from pellucid.verification.chains.text_chain import TextChain
from pellucid.verification.steps.place import StepPlace, places
from pellucid.verification.steps.text_places import text_places

Labels = dict[str, Any]


def chain_ids(model: LanguageModel, kept: KeptChain) -> tuple[int, ...]:
    """The token ids of a chain up to the end of its last step and the token after it."""
    if isinstance(kept.chain, TextChain):
        return text_places(model, kept.chain)[0]
    assert kept.chain.chain is not None
    return kept.chain.ids[: 2 + kept.chain.chain.steps[-1].stop]


def labelled_places(
    model: LanguageModel, kept: KeptChain, number: int
) -> Iterator[tuple[Labels, StepPlace]]:
    """Every labelled step of a chain: the columns of `LABELS`, and where it stands.

    Args:
        model: whose tokens they are.
        kept: a chain that could be read.
        number: of the chain in its source.
    """
    shared: Labels = {
        "group": kept.group,
        "source": kept.source,
        "language": kept.language,
        "chain": number,
        "operators": kept.operators,
        "weight": 1.0,
    }
    steps = (
        _free_text(model, kept.chain) if isinstance(kept.chain, TextChain) else _exact(model, kept)
    )
    for own, place in steps:
        where = {"start": place.start, "tokens": place.stop - place.start}
        yield shared | own | where, place


def _exact(model: LanguageModel, kept: KeptChain) -> Iterator[tuple[Labels, StepPlace]]:
    assert not isinstance(kept.chain, TextChain)
    chain = kept.chain.chain
    assert chain is not None
    language, before = LANGUAGES[kept.language], chain.question
    opening = 1 if kept.chain.ids[0] in model.special_tokens.structural else 0
    for step, place in places(chain, opening):
        yield (
            {
                "wrong": not step.local,
                "wrong_so_far": not step.whole,
                "first_error": step.first_error,
                "error": step.error or "",
                "number": step.number,
                "remaining": count_operators(language, before),
                "text": " ".join(step.expression),
                "before": " ".join(before),
            },
            place,
        )
        before = step.expression


def _free_text(model: LanguageModel, chain: TextChain) -> Iterator[tuple[Labels, StepPlace]]:
    _, where = text_places(model, chain)
    before, failed = chain.prompt, False
    for step, place in zip(chain.steps, where, strict=True):
        if step.right is not None:
            yield (
                {
                    "wrong": not step.right,
                    "wrong_so_far": failed or not step.right,
                    "first_error": not step.right and not failed,
                    "error": "" if step.right else "unknown",
                    "number": step.number,
                    "remaining": 0,
                    "text": chain.step_text(step),
                    "before": before,
                },
                place,
            )
        failed, before = failed or step.right is False, chain.step_text(step)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Records with the same keys as columns."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
