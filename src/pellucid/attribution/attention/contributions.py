"""What every source contributes to a head's queries or keys.

Two accounts. Under frozen norms contributions are exact and sum to the query (or key): they say
what it consists of. But a norm divides by the length of what it reads: take a source out, and all
the others grow. `answered` leaves from each contribution what the norm gives back to first order,
so it says what would change:

    answered_i = c_i - c (x . x_i) / |x|^2          for x = sum_i x_i, read into c = sum_i c_i

once for the block's norm, and once more for a norm on queries and keys themselves.

Shape suffixes: C columns or sources, n positions, h head width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.attribution.attention.layer_scores import LayerScores
from pellucid.attribution.attention.sources import SourceNames
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.sweep import attribution_rows
from pellucid.attribution.targets import Targets, concatenate
from pellucid.core.types import Site

MOST_VALUES = 1 << 25
QUERY, KEY = 0, 1


class Contributions(NamedTuple):
    """Contributions of all sources, rotated to their position: as they are, and as answered."""

    held: Float[Tensor, "C h"]
    answered: Float[Tensor, "C h"]


def contributions(
    linear: LinearModel,
    table: SourceTable,
    scores: LayerScores,
    side: int,
    head: int,
    positions: Sequence[int],
) -> Contributions:
    """The mean over positions of what each source contributes.

    Args:
        linear: the affine map of the prompt.
        table: its columns.
        scores: of the layer.
        side: `QUERY` or `KEY`.
        head: number of the query head, or of the key head.
        positions: where.
    """
    places = [_Place(linear, scores, side, head, position) for position in positions]
    sums = [linear.tokens.new_zeros(table.size, places[0].width) for _ in range(2)]
    at_once = max(1, MOST_VALUES // (table.size * places[0].n_rows))
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]
        rows_nrC = _rows(linear, table, part)
        for place, rows_rC in zip(part, rows_nrC, strict=True):
            for total, value in zip(sums, place.contributions(rows_rC), strict=True):
                total += value
    names = SourceNames(linear, table)
    held, answered = (names.merged(total / len(places)) for total in sums)
    return Contributions(held, answered)


def _rows(
    linear: LinearModel, table: SourceTable, places: Sequence["_Place"]
) -> Float[Tensor, "n r C"]:
    """The rows of some places, all columns."""
    n_rows = places[0].n_rows
    rows = linear.tokens.new_zeros(len(places), n_rows, table.size)
    for block in attribution_rows(linear, table, concatenate([each.targets() for each in places])):
        place, row = block.rows // n_rows, block.rows % n_rows
        rows[place[:, None], row[:, None], block.columns] = block.weights
    return rows


class _Place:
    """One head's query or key at one position: what is read for it, and how it is put together.

    Rows: one for each number of the query before its norm, then the products of every source with
    the residual itself, and with what the query's own norm reads.
    """

    def __init__(
        self, linear: LinearModel, scores: LayerScores, side: int, head: int, position: int
    ) -> None:
        self.linear, self.scores, self.position = linear, scores, position
        projection = (scores.weights.query, scores.weights.key)[side]
        dtype = linear.tokens.dtype
        self.width = projection.d_head
        self.n_rows = self.width + 2
        self.own = slice(head * self.width, (head + 1) * self.width)
        self.factors = scores.factors[side][position, head]
        self.norm = projection.norm
        per_head = self.norm is not None and len(self.norm.gain) == self.width
        # What the norm on queries or keys measures: this head, or all of them.
        self.measured = self.own if per_head else slice(None)
        weight = projection.weight.T.to(dtype)
        bias = projection.bias
        self.vectors = weight
        self.raw = scores.raw[side][position].flatten()
        constant = scores.read.constant(weight)
        self.constant = constant if bias is None else constant + bias.to(dtype)

    def targets(self) -> Targets:
        """The rows that are read for this place."""
        read, raw = self.scores.read, self.raw[self.measured]
        resid = self._centred()
        own = self.vectors[self.own]
        length = (raw @ self.vectors[self.measured])[None]
        where = torch.full((self.n_rows,), self.position)
        pulled = read.pull(torch.cat([own, length]), where[1:])
        nothing = resid.new_zeros(1)
        return Targets(
            depth=torch.full_like(where, self.linear.depth(Site("resid_pre", self.scores.layer))),
            position=where,
            vectors=torch.cat([pulled[:-1], resid[None], pulled[-1:]]),
            constant=torch.cat(
                [
                    self.constant[self.own],
                    nothing,
                    (raw @ self.constant[self.measured])[None],
                ]
            ),
            value=torch.cat(
                [self.raw[self.own], (resid @ resid)[None], (raw @ raw)[None]],
            ),
        )

    def contributions(
        self, rows_rC: Float[Tensor, "r C"]
    ) -> tuple[Float[Tensor, "C h"], Float[Tensor, "C h"]]:
        """Contributions from the finished rows: as they are, and as answered by the norms."""
        held_Ch, along_resid, along_raw = rows_rC[:-2].T, rows_rC[-2], rows_rC[-1]
        answered_Ch, scaled = held_Ch, self.raw - self.constant
        share = self._share(along_resid)
        answered_Ch = answered_Ch - share[:, None] * scaled[self.own]
        if self.norm is not None:
            raw = self.raw[self.measured]
            along = along_raw - share * (raw @ scaled[self.measured])
            answered = along / (raw @ raw + len(raw) * self.norm.eps)
            answered_Ch = answered_Ch - answered[:, None] * self.raw[self.own]
        return self._finished(held_Ch), self._finished(answered_Ch)

    def _share(self, along_resid: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
        """The share of what the block's norm measures that each source makes up."""
        norm, resid = self.scores.read.norm, self._centred()
        if norm is None:
            return torch.zeros_like(along_resid)
        return along_resid / (resid @ resid + len(resid) * norm.eps)

    def _centred(self) -> Float[Tensor, " d"]:
        norm, resid = self.scores.read.norm, self.scores.resid[self.position]
        return resid if norm is None else norm.centre(resid)

    def _finished(self, raw_Ch: Float[Tensor, "C h"]) -> Float[Tensor, "C h"]:
        """Through the norm and the rotation, both frozen."""
        normed_Ch = raw_Ch * self.factors
        turn = self.scores.rotation
        return normed_Ch if turn is None else turn.apply(normed_Ch, self.position)
