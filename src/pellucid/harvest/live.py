"""Activations harvested live: the model reads rows of text, block by block."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite
from pellucid.harvest.activations import ActivationSource, Block
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.rows import Row, RowBatch, TextPosition, TokenRows, padded_batches
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel

FORWARD_TOKENS = 2048
"""Positions in one forward pass of the model (measured: 1024 to 2048 is fastest on a CPU)."""
MOST_BLOCK_TOKENS = 1 << 14
BLOCK_BYTES = 1 << 27


def site_widths(model: LanguageModel, sites: Sequence[AnySite]) -> dict[AnySite, int]:
    """The width of every site, from a forward pass over one token.

    Raises:
        SiteError: the model has no such site.
    """
    ids = torch.zeros((1, 1), dtype=torch.int64)
    values = model.activations(ids, sites, mask=torch.ones_like(ids))
    return {site: value.shape[-1] for site, value in values.items()}


def tokens_a_block(widths: Sequence[int]) -> int:
    """How many tokens make a block: what `BLOCK_BYTES` hold in float32, within bounds.

    More tokens make rows of more equal length share a pass; fewer than a pass would waste it.
    """
    held = BLOCK_BYTES // (4 * sum(widths))
    return max(FORWARD_TOKENS, min(held, MOST_BLOCK_TOKENS))


class LiveActivations(ActivationSource):
    """What a model computes on a text; all sites come from one forward pass.

    A block is as many whole rows as hold `tokens_a_block` tokens of text, fewer where the text
    ends. Its rows are read in passes of similar length; its tokens are in the order of the text.

    Args:
        model: runs without gradients, and stops after the deepest site.
        source: the text.
        sites: what to harvest.
        config: how to read.
        keep: the sites to give; by default all. The others only decide how many tokens make a
            block, so that processes which keep different sites read the same blocks.
        block_tokens: how many tokens make a block, by default `tokens_a_block` of the widths.

    Attributes:
        widths: of every site.
        rows: where the tokens come from; this object alone must read them.

    Raises:
        ConfigError: the model cannot read text so.
        DataError: the text has no token that the model could learn from.
        SiteError: the model has no such site.
    """

    def __init__(
        self,
        model: LanguageModel,
        source: TextSource,
        sites: Sequence[AnySite],
        config: HarvestConfig,
        *,
        keep: Sequence[AnySite] | None = None,
        block_tokens: int | None = None,
    ) -> None:
        self.name = source.name
        self.widths = site_widths(model, list(dict.fromkeys(sites)))
        self.rows = TokenRows(source, model, length=config.context_length, packing=config.packing)
        self._model, self._config = model, config
        self._block_tokens = block_tokens or tokens_a_block(list(self.widths.values()))
        kept = list(self.widths) if keep is None else list(dict.fromkeys(keep))
        self._kept = {site: self.widths[site] for site in kept}

    @property
    def tokens_a_reading(self) -> int | None:
        """See `ActivationSource.tokens_a_reading`."""
        return self.rows.tokens_a_reading

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self._model.device

    def next_block(self) -> Block:
        """See `ActivationSource.next_block`."""
        values, tokens = self._read(self.rows.take(self._block_tokens))
        multiple = self._config.exclude_high_norm
        if multiple is None:
            return Block(values, tokens, 0)
        kept = _within_norm(values, multiple)
        if not kept.any():
            raise DataError(
                f"exclude_high_norm {multiple} leaves no token of a block of {len(tokens)} of "
                f"{self.name}; give a larger multiple"
            )
        values = {site: rows[kept] for site, rows in values.items()}
        return Block(values, tokens[kept.cpu()], int((~kept).sum()))

    def skip_block(self) -> None:
        """See `ActivationSource.skip_block`; the model does not read it."""
        self.rows.take(self._block_tokens)

    def settings(self) -> dict[str, Any]:
        """See `ActivationSource.settings`."""
        return {
            **self._config.to_json(),
            "block_tokens": self._block_tokens,
            "stored": "float32",
            "order": "text",
        }

    def identity(self) -> dict[str, Any]:
        """What decides every value; a cache is of use to whoever asks for the same. JSON-able."""
        return {
            "model": self._model.fingerprint(),
            "text": self.rows.source.fingerprint,
            "sites": {str(site): width for site, width in self.widths.items()},
            **self._config.to_json(),
            "block_tokens": self._block_tokens,
        }

    def state_dict(self) -> dict[str, int]:
        """See `ActivationSource.state_dict`."""
        return self.rows.position.to_json()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `ActivationSource.load_state_dict`."""
        position = TextPosition(**state)
        if position != self.rows.position:
            self.rows.position = position

    def _read(
        self, rows: list[Row]
    ) -> tuple[dict[AnySite, Float[Tensor, "N D"]], Int[Tensor, " N"]]:
        """What the model computes at every text token of some rows, in their order."""
        tokens = torch.tensor([row.ids[place] for row in rows for place in row.text])
        values = {
            site: torch.empty((len(tokens), width), device=self.device)
            for site, width in self._kept.items()
        }
        ends = list(accumulate(len(row.text) for row in rows))
        by_length = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
        ordered = [
            place
            for number in by_length
            for place in range(ends[number] - len(rows[number].text), ends[number])
        ]
        done = 0
        for batch in padded_batches([rows[n] for n in by_length], max_tokens=FORWARD_TOKENS):
            taken = int(batch.text.sum())
            places = torch.tensor(ordered[done : done + taken], device=self.device)
            for site, part in self._activations(batch).items():
                values[site][places] = part
            done += taken
        return values, tokens

    def _activations(self, batch: RowBatch) -> dict[AnySite, Float[Tensor, "N D"]]:
        device = self._model.device
        ids, mask = batch.ids.to(device), batch.mask.to(device)
        places = batch.text.flatten().nonzero().flatten().to(device)
        reduced = self._config.forward_precision == "bfloat16"
        precision = torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext()
        with torch.no_grad(), precision:
            values = self._model.activations(ids, list(self._kept), mask=mask)
        return {
            site: value.flatten(0, 1).index_select(0, places).float()
            for site, value in values.items()
        }


def _within_norm(
    values: dict[AnySite, Float[Tensor, "N D"]], multiple: float
) -> Bool[Tensor, " N"]:
    """Which tokens' norms are at most `multiple` times the median at every site; NaN is kept."""
    norms = torch.stack([rows.norm(dim=1) for rows in values.values()])
    return ~(norms > multiple * norms.median(dim=1, keepdim=True).values).any(dim=0)
