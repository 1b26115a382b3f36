"""How likely continuations are after prompts that are steered, many arms in shared forwards."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.prompts import pad
from pellucid.interventions.run import run
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompt, Prompts, ids_of
from pellucid.models.model import LanguageModel


class _Row(NamedTuple):
    arm: int
    prompt: int
    continuation: int


@torch.no_grad()
def continuation_log_probabilities(
    model: LanguageModel,
    prompts: Prompts,
    continuations: Prompts,
    arms: Sequence[Sequence[Intervention]],
) -> Float[Tensor, "A P C"]:
    """Mean log-probability a token of every continuation after every prompt, in every arm.

    The continuation's tokens count as generated ones: where-clauses (and those of gates) mean what
    they would mean if the model had written it.

    Args:
        model: the model.
        prompts: texts or ids.
        continuations: texts or ids.
        arms: edits, made for all rows (`rows` None); an empty arm is the unedited model.

    Raises:
        InterventionError: no prompt or continuation, or an edit cannot be made or selects nothing.
        PromptError: a text cannot be read, or prompt and continuation are too long together.
    """
    if not len(prompts) or not len(continuations):
        raise InterventionError(
            f"there are {len(prompts)} prompts and {len(continuations)} continuations; give at "
            "least one of both"
        )
    heads = [ids_of(model, each) for each in prompts]
    tails = [_tail(model, each) for each in continuations]
    rows = [
        _Row(arm, prompt, tail)
        for prompt in range(len(heads))
        for tail in range(len(tails))
        for arm in range(len(arms))
    ]
    told = torch.zeros(len(arms), len(heads), len(tails))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        ids = [model.encode_ids([*heads[row.prompt], *tails[row.continuation]]) for row in part]
        batch = replace(pad(model, ids), prompted=tuple(len(heads[row.prompt]) for row in part))
        edits = [
            replace(each, rows=(number,))  # one by one: a row that nothing would edit is an error
            for number, row in enumerate(part)
            for each in arms[row.arm]
        ]
        logp = run(model, batch, edits).logits[:, :-1].float().log_softmax(-1)
        own = logp.gather(-1, batch.ids[:, 1:, None]).squeeze(-1).cpu()
        for number, row in enumerate(part):
            tail = len(tails[row.continuation])
            told[row.arm, row.prompt, row.continuation] = own[number, -tail:].mean()
    return told


def _tail(model: LanguageModel, continuation: Prompt) -> list[int]:
    """The ids of a continuation, without the token that opens a prompt."""
    ids = ids_of(model, continuation)
    opening = model.special_tokens.first
    return ids[1:] if ids[0] == opening and len(ids) > 1 else ids
