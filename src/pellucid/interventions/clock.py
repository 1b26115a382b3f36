"""Which tokens the current forward computes, by absolute position.

Positions come from the prompts, their mask and how much the key-value cache holds already, never
from the shape of a forward: a cached step has one column, a chunk of a prompt a few.

Shape legend: R rows of the forward (prompts times beams), S its columns.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.prompts import Batch
from pellucid.models.cache_name import cache_among


class Clock:
    """Told of every forward of a run before it computes anything.

    Args:
        batch: the prompts; None to take them from the first forward of each sequence.
        on_start: called with the prompts whenever a sequence is read from its beginning.

    Attributes:
        batch: the prompts of the current sequence.
        positions: [R, S] of the current forward, -1 at padding.
        copies: rows of the forward for each prompt (beams).
        restarted: whether the current forward reads its sequence from the beginning.
        version: another number whenever the positions are others than in the forward before.
    """

    def __init__(self, batch: Batch | None, on_start: Callable[[Batch], None]) -> None:
        self._given = batch
        self._on_start = on_start
        self.batch = batch
        self.positions: Int[np.ndarray, "R S"] = np.empty((0, 0), dtype=np.int64)
        self.copies = 1
        self.restarted = True
        self.version = 0
        self._columns: Int[np.ndarray, "B P"] = np.empty((0, 0), dtype=np.int64)
        self._lengths: Int[np.ndarray, " B"] = np.empty(0, dtype=np.int64)

    def tick(self, arguments: Mapping[str, Any]) -> None:
        """Read the arguments of a forward that is about to run.

        Raises:
            InterventionError: rows or cached tokens that cannot be the given prompts'.
        """
        ids = arguments.get("input_ids")
        if not isinstance(ids, Tensor):
            raise InterventionError(
                "an edited forward was called without input_ids; edits need them to know which "
                "token is which"
            )
        rows, length = ids.shape
        past = _cached(cache_among(arguments))
        self.restarted = past == 0
        if self.restarted:
            self._start(ids, arguments.get("attention_mask"))
        elif self.batch is None or (self._given is None and length > 1):
            raise InterventionError(
                f"an edited forward continues a cache of {past} tokens whose prompt is unknown; "
                "use pellucid.generate, or give edit() the batch of prompts"
            )
        assert self.batch is not None
        if rows % len(self.batch):
            raise InterventionError(
                f"a forward has {rows} rows, which is no multiple of the {len(self.batch)} prompts "
                "that the edits were made for; give edit() the prompts that are run"
            )
        self.copies = rows // len(self.batch)
        columns = np.arange(past, past + length)
        known = self._columns.shape[1]
        after = self._lengths[:, None] + (columns[None, :] - known)
        inside = self._columns[:, np.minimum(columns, known - 1)]
        positions = np.where(columns[None, :] < known, inside, after)
        positions = np.repeat(positions, self.copies, axis=0)
        if not np.array_equal(positions, self.positions):
            self.positions = positions
            self.version += 1

    def _start(self, ids: Tensor, mask: Any) -> None:
        if self._given is not None:
            if not len(self._lengths):
                self._take(self._given)
            return
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        if real.ndim != 2 or real.shape != ids.shape:
            raise InterventionError(
                f"an edited forward got an attention mask of shape {tuple(real.shape)} for ids "
                f"of shape {tuple(ids.shape)}; give edit() the batch of prompts"
            )
        batch, last = Batch(ids.clone(), real.bool()), self.batch
        if last is None or not (
            torch.equal(last.ids, batch.ids) and torch.equal(last.mask, batch.mask)
        ):
            self.batch = None
            self._on_start(batch)
            self._take(batch)

    def _take(self, batch: Batch) -> None:
        self.batch = batch
        self._columns = batch.positions.cpu().numpy()
        self._lengths = np.array(batch.lengths)


def _cached(cache: Any) -> int:
    """How many tokens a key-value cache holds."""
    return 0 if cache is None else int(cache.get_seq_length())
