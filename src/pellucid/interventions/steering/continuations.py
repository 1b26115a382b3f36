"""How likely continuations are after prompts that are steered, many arms in shared forwards."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.prompts import as_batch, pad
from pellucid.interventions.run import run
from pellucid.interventions.selection import Prompted
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompt, Prompts, ids_of
from pellucid.interventions.where import Where, at
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
    clauses = _Clauses(model, heads, max(len(tail) for tail in tails))
    rows = [
        _Row(arm, prompt, tail)
        for prompt in range(len(heads))
        for tail in range(len(tails))
        for arm in range(len(arms))
    ]
    told = torch.zeros(len(arms), len(heads), len(tails))
    gated = any(each.gate is not None for arm in arms for each in arm)
    for part in _parts(rows, [len(tail) for tail in tails], apart=gated):
        ids = [model.encode_ids([*heads[row.prompt], *tails[row.continuation]]) for row in part]
        batch = pad(model, ids)
        edits = [
            clauses.absolute(each, row.prompt, len(tails[row.continuation]), number)
            for number, row in enumerate(part)
            for each in arms[row.arm]
        ]
        logp = run(model, batch.ids, edits, mask=batch.mask).logits[:, :-1].float().log_softmax(-1)
        own = logp.gather(-1, batch.ids[:, 1:, None]).squeeze(-1).cpu()
        for number, row in enumerate(part):
            tail = len(tails[row.continuation])
            told[row.arm, row.prompt, row.continuation] = own[number, -tail:].mean()
    return told


def _parts(rows: list[_Row], tails: list[int], *, apart: bool) -> Iterator[list[_Row]]:
    """Rows that are run together.

    A gate reads all rows of a forward at the same positions: with gates, those of one prompt and
    one length of continuation are run apart from the others.
    """

    def key(row: _Row) -> tuple[int, int]:
        return (row.prompt, tails[row.continuation]) if apart else (0, 0)

    for _, members in groupby(sorted(rows, key=key), key=key):
        waiting = list(members)
        for start in range(0, len(waiting), ROWS_AT_ONCE):
            yield waiting[start : start + ROWS_AT_ONCE]


class _Clauses:
    """Where-clauses of a prompt, written as positions in the prompt with its continuation."""

    def __init__(self, model: LanguageModel, heads: list[list[int]], longest: int) -> None:
        batch = as_batch(model, heads)
        self._prompted = Prompted(model, batch, max(batch.lengths) + longest)
        self._lengths = batch.lengths
        self._known: dict[tuple[Where, int], Where] = {}
        self._gates: dict[tuple[int, int, int], tuple[Gate, Gate]] = {}

    def absolute(self, edit: Intervention, prompt: int, tail: int, row: int) -> Intervention:
        """An edit for one row that holds a prompt and a continuation of `tail` tokens.

        Raises:
            InterventionError: nothing of the row would be edited.
        """
        end = self._lengths[prompt] + tail
        where = self._positions(edit.where, prompt, end)
        gate = None if edit.gate is None else self._gate(edit.gate, prompt, end)
        return replace(edit, where=where, rows=(row,), gate=gate)

    def _gate(self, gate: Gate, prompt: int, end: int) -> Gate:
        """One object for all rows that share it, so that it is read once."""
        key = (id(gate), prompt, end)
        if key not in self._gates:  # the original is kept too: its id must not be used again
            over = self._positions(gate.over, prompt, end)
            self._gates[key] = (gate, replace(gate, over=over))
        return self._gates[key][1]

    def _positions(self, where: Where, prompt: int, end: int) -> Where:
        key = (where, prompt)
        if key not in self._known:
            chosen = self._prompted.table(where, [prompt])[0].nonzero()[0].tolist()
            self._known[key] = at(*chosen)
        kept = [each for each in self._known[key].positions if each < end]
        if not kept:
            raise InterventionError(
                "an edit selects no token of a prompt and its continuation; change its where-clause"
            )
        return at(*kept)


def _tail(model: LanguageModel, continuation: Prompt) -> list[int]:
    """The ids of a continuation, without the token that opens a prompt."""
    ids = ids_of(model, continuation)
    opening = model.special_tokens.first
    return ids[1:] if ids[0] == opening and len(ids) > 1 else ids
