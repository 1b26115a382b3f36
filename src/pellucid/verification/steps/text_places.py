"""Where the steps of a chain in free text stand among a model's tokens."""

from collections.abc import Sequence
from typing import Any

from pellucid.core.errors import DataError, PromptError
from pellucid.models.model import LanguageModel
from pellucid.models.prompt import check_prompt
from pellucid.verification.chains.text_chain import TextChain, TextStep
from pellucid.verification.steps.place import Role, StepPlace


def text_places(
    model: LanguageModel, chain: TextChain
) -> tuple[tuple[int, ...], tuple[StepPlace, ...]]:
    """Token ids of prompt and chain under the prompt policy, and the place of every step.

    A token that reaches into a step is the step's; one that reaches into two is the first one's.
    What a step copied is unknown in free text, so the whole step is its answer.

    Args:
        model: its tokenizer must be a fast one, which knows what each token stands for.
        chain: cut into steps.

    Raises:
        DataError: the chain has no steps, or a step has no token of its own.
        PromptError: there is no fast tokenizer, or the model cannot be asked so much.
    """
    if chain.unread is not None:
        raise DataError(f"the chain has no steps ({chain.unread}); leave it out")
    ids, spans = _tokens(model, chain.prompt + chain.text)
    opening = next((n for n, (_, stop) in enumerate(spans) if stop), len(spans))
    return ids, tuple(places_among(chain, spans, opening))


def places_among(
    chain: TextChain, spans: Sequence[tuple[int, int]], opening: int
) -> list[StepPlace]:
    """The place of every step among tokens.

    Args:
        chain: cut into steps.
        spans: the characters of prompt and text that each token stands for, half-open.
        opening: how many special tokens stand before the prompt.

    Raises:
        DataError: a step has no token of its own.
    """
    begin = len(chain.prompt)
    roles: list[Role] = ["opening" if n < opening else "mark" for n in range(len(spans))]
    owners = [-1] * len(spans)
    for at, (start, stop) in enumerate(spans[opening:], opening):
        if start < begin:
            roles[at] = "question"
        owner = _owner(chain, start - begin, stop - begin)
        if owner is not None:
            owners[at], roles[at] = owner, "earlier"
    return [_place(chain, step, owners, roles) for step in chain.steps]


def _owner(chain: TextChain, start: int, stop: int) -> int | None:
    """Number of the first step that some characters of the text reach into."""
    reached = (
        step.number
        for step in chain.steps
        if start < stop and start < step.stop and stop > step.start
    )
    return next(reached, None)


def _place(
    chain: TextChain, step: TextStep, owners: Sequence[int], roles: Sequence[Role]
) -> StepPlace:
    mine = [at for at, owner in enumerate(owners) if owner == step.number]
    if not mine:
        raise DataError(
            f"step {step.number} ({chain.step_text(step)[:40]!r}) has no token of its own; cut "
            "the chain into longer steps"
        )
    first, last = mine[0], mine[-1] + 1
    own: list[Role] = ["answer"] * (last - first)
    return StepPlace(start=first, stop=last, answer=(first, last), roles=(*roles[:first], *own))


def _tokens(model: LanguageModel, text: str) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Ids under the prompt policy, and the characters that each stands for."""
    tokenizer: Any = model.tokenizer
    if tokenizer is None or not tokenizer.is_fast:
        what = "no tokenizer" if tokenizer is None else "a slow tokenizer"
        raise PromptError(
            f"{model.name} was loaded with {what}; steps of free text need a fast one "
            "(tokenizer.json), which says what each token stands for"
        )
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = [(int(a), int(b)) for a, b in found["offset_mapping"]]
    ids = model.special_tokens.with_first(found["input_ids"])
    check_prompt(
        ids,
        model.special_tokens,
        vocab_size=model.vocab_size,
        context_length=model.context_length,
    )
    return tuple(ids), [(0, 0)] * (len(ids) - len(spans)) + spans
