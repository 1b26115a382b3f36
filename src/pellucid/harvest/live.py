"""Activations harvested live: the model reads text, its sites' values come out shuffled."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.core.types import AnySite
from pellucid.harvest.rows import Row, RowBatch, TextPosition, TokenRows, padded_batches
from pellucid.harvest.shuffle import ActivationBuffer, fill_order
from pellucid.models.model import LanguageModel

FORWARD_TOKENS = 2048
"""Positions in one forward pass of the model (measured: 1024 to 2048 is fastest on a CPU)."""
BUFFER_BYTES = 1 << 29
MOST_BUFFERED_TOKENS = 1 << 17


class ActivationBatch(NamedTuple):
    """Activations of N tokens at several sites, in float32, and the tokens' ids."""

    values: dict[AnySite, Float[Tensor, "N D"]]
    tokens: Int[Tensor, " N"]


def site_widths(model: LanguageModel, sites: Sequence[AnySite]) -> dict[AnySite, int]:
    """The width of every site, from a forward pass over one token.

    Raises:
        SiteError: the model has no such site.
    """
    ids = torch.zeros((1, 1), dtype=torch.int64)
    return {site: value.shape[-1] for site, value in model.activations(ids, sites).items()}


def tokens_to_shuffle(widths: Sequence[int]) -> int:
    """How many tokens to shuffle together: what `BUFFER_BYTES` hold in float32, within a bound."""
    return min(BUFFER_BYTES // (4 * sum(widths)), MOST_BUFFERED_TOKENS)


class ActivationStream:
    """An endless iterator of shuffled `ActivationBatch`es; all sites come from one forward pass.

    It fills a buffer with the activations of consecutive text, gives them out in a random order,
    and fills it again. The state is where in the text the fill began, the fill's number and how
    many batches of it are out: resuming harvests that one fill again, so the batches that follow
    are bit for bit those of an uninterrupted stream (with the same number of threads).

    Args:
        model: runs without gradients, and stops after the deepest site.
        rows: where the tokens come from; the stream alone must read them.
        sites: what to harvest.
        batch_tokens: how many tokens every batch has.
        fill_batches: how many batches are shuffled together.
        seed: of the order.
        autocast: run the model's forward in bfloat16; the values are float32 all the same.

    Raises:
        ConfigError: sizes that make no batch.
        SiteError: the model has no such site (at the first batch).
    """

    def __init__(
        self,
        model: LanguageModel,
        rows: TokenRows,
        sites: Sequence[AnySite],
        *,
        batch_tokens: int,
        fill_batches: int,
        seed: int = 0,
        autocast: bool = False,
    ) -> None:
        for name, value in (("batch_tokens", batch_tokens), ("fill_batches", fill_batches)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; give a positive number")
        self.rows = rows
        self._model, self._sites = model, list(dict.fromkeys(sites))
        self._batch_tokens, self._fill_batches = batch_tokens, fill_batches
        self._seed, self._autocast = seed, autocast
        self._buffer = ActivationBuffer(batch_tokens * fill_batches)
        self._order: Int[Tensor, " fill"] | None = None
        self._fill, self._next_batch = 0, 0
        self._start = _FillStart(rows.position, 0)
        self._following = self._start

    def __iter__(self) -> "ActivationStream":
        return self

    def __next__(self) -> ActivationBatch:
        if self._order is None:
            self._order = self._harvest()
        begin = self._next_batch * self._batch_tokens
        chosen = self._order[begin : begin + self._batch_tokens]
        batch = ActivationBatch(*self._buffer.take(chosen))
        self._next_batch += 1
        if self._next_batch == self._fill_batches:
            self._fill, self._next_batch = self._fill + 1, 0
            self._start, self._order = self._following, None
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here; JSON-able."""
        return {
            "fill": self._fill,
            "next_batch": self._next_batch,
            "text": self._start.text.to_json(),
            "skipped": self._start.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, on a stream made with the same arguments."""
        self._fill, self._next_batch = state["fill"], state["next_batch"]
        self._start = _FillStart(TextPosition(**state["text"]), state["skipped"])
        self._order = None

    def _harvest(self) -> Int[Tensor, " fill"]:
        """Fill the buffer; the order in which to give it out."""
        rows, self._following = self._collect_rows()
        self._buffer.clear()
        for batch in padded_batches(rows, max_tokens=FORWARD_TOKENS):
            self._buffer.append(self._activations(batch), batch.ids[batch.text])
        return fill_order(len(self._buffer), seed=self._seed, fill=self._fill)

    def _collect_rows(self) -> tuple[list[Row], "_FillStart"]:
        """Rows whose text is exactly one fill, and where the next fill begins.

        A row that the fill has no room for is cut: what is left of it begins the next fill, where
        the model reads the row once more.
        """
        self.rows.position = self._start.text
        rows: list[Row] = []
        skipped = self._start.skipped
        missing = self._batch_tokens * self._fill_batches
        while True:
            position = self.rows.position
            ids, text = next(self.rows)
            taken = text[skipped : skipped + missing]
            rows.append(Row(ids, taken))
            missing -= len(taken)
            if not missing:
                given = skipped + len(taken)
                if given < len(text):
                    return rows, _FillStart(position, given)
                return rows, _FillStart(self.rows.position, 0)
            skipped = 0

    def _activations(self, batch: RowBatch) -> dict[AnySite, Float[Tensor, "N D"]]:
        device = self._model.device
        ids, mask = batch.ids.to(device), batch.mask.to(device)
        places = batch.text.flatten().nonzero().flatten().to(device)
        reduced = torch.autocast(device.type, torch.bfloat16) if self._autocast else nullcontext()
        with torch.no_grad(), reduced:
            values = self._model.activations(ids, self._sites, mask=mask)
        return {
            site: value.flatten(0, 1).index_select(0, places).float()
            for site, value in values.items()
        }


class _FillStart(NamedTuple):
    """Where a fill begins: a row, and how many of its text tokens earlier fills have given out."""

    text: TextPosition
    skipped: int
