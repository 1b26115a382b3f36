"""Which tokens of a forward the members of a group edit.

Shape legend: P pairs of a member and a prompt it edits, L the most tokens a row can have, n tokens
selected in one forward.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.clock import Clock
from pellucid.interventions.prompts import Batch, find_span
from pellucid.interventions.where import Where
from pellucid.models.model import LanguageModel


class Prompted:
    """The prompts of a run, as where-clauses are resolved against them.

    Args:
        model: whose tokens they are.
        batch: the prompts.
        new_tokens: the most tokens that follow a prompt; None for as many as the context holds.
        until: for each prompt, the first position that no edit may touch; None for no limit.
    """

    def __init__(
        self,
        model: LanguageModel,
        batch: Batch,
        new_tokens: int | None,
        until: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.batch = batch
        self.lengths = batch.prompt_lengths
        whole = batch.lengths
        context = max(model.context_length, *whole)
        self._whole = [context if new_tokens is None else n + new_tokens for n in whole]
        self._until = self._whole if until is None else list(until)
        special = model.special_token_mask(batch.ids) & batch.mask
        self._openers = (special & (batch.positions == 0)).any(dim=1).tolist()

    def table(self, where: Where, rows: Sequence[int]) -> Bool[np.ndarray, "rows L"]:
        """The selected positions of some prompts.

        Raises:
            InterventionError: a position is beyond a row, or a span does not occur in it.
        """
        table = np.zeros((len(rows), max(self._whole)), dtype=bool)
        for number, row in enumerate(rows):
            table[number, : self._whole[row]] = where.resolve(
                self.lengths[row],
                self._whole[row],
                opener=self._openers[row],
                spans=partial(find_span, self.model, self.batch.row(row)),
            )
            table[number, self._until[row] :] = False
        return table

    def rows(self, rows: Sequence[int] | None) -> list[int]:
        """The prompts an intervention edits.

        Raises:
            InterventionError: a row that the batch does not have.
        """
        if rows is None:
            return list(range(len(self.batch)))
        if max(rows) >= len(self.batch):
            raise InterventionError(
                f"an intervention edits row {max(rows)} of a batch of {len(self.batch)}; use rows "
                f"0 to {len(self.batch) - 1}"
            )
        return list(rows)


class Entries(NamedTuple):
    """The selected tokens of one forward: where they are in it, and whose they are."""

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    members: Int[Tensor, " n"]
    pairs: Int[Tensor, " n"]
    generated: Int[Tensor, " n"]


class Selection:
    """The tokens that the members of a group select, once the prompts are known."""

    def __init__(self) -> None:
        self.rows: Int[np.ndarray, " P"] = np.empty(0, dtype=np.int64)
        self.members: Int[np.ndarray, " P"] = np.empty(0, dtype=np.int64)
        self.table: Bool[np.ndarray, "P L"] = np.empty((0, 0), dtype=bool)
        self._lengths: Int[np.ndarray, " P"] = np.empty(0, dtype=np.int64)
        self._last: tuple[int, Entries | None] | None = None

    def fill(
        self, prompted: Prompted, tables: Sequence[tuple[list[int], Bool[np.ndarray, "rows L"]]]
    ) -> None:
        """Take each member's rows and table.

        Args:
            prompted: the prompts.
            tables: one a member.
        """
        counts = [len(rows) for rows, _ in tables]
        self.rows = np.array([row for rows, _ in tables for row in rows], dtype=np.int64)
        self.members = np.repeat(np.arange(len(tables)), counts)
        self.table = np.concatenate([table for _, table in tables])
        self._lengths = np.array(prompted.lengths)[self.rows]
        self._last = None

    def entries(self, clock: Clock, device: torch.device) -> Entries | None:
        """The tokens selected in the current forward; None when there are none."""
        if self._last is None or self._last[0] != clock.version:
            self._last = clock.version, self._find(clock, device)
        return self._last[1]

    def _find(self, clock: Clock, device: torch.device) -> Entries | None:
        copies = clock.copies
        if copies == 1:
            pairs, rows = np.arange(len(self.rows)), self.rows
        else:
            pairs = np.repeat(np.arange(len(self.rows)), copies)
            rows = (self.rows[:, None] * copies + np.arange(copies)).ravel()
        positions = clock.positions[rows]
        last = self.table.shape[1] - 1
        chosen = self.table[pairs[:, None], positions.clip(0, last)] & (positions >= 0)
        chosen &= positions <= last
        which, columns = chosen.nonzero()
        if not len(which):
            return None
        own, at = pairs[which], positions[which, columns]
        parts = (
            rows[which],
            columns,
            at,
            self.members[own],
            own,
            (at >= self._lengths[own]).astype(np.int64),
        )
        return Entries(*(torch.from_numpy(part).to(device) for part in parts))
