"""The shuffle buffer: a block of activations given out in a random order that a seed decides."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import AnySite


def fill_order(total: int, *, seed: int, fill: int) -> Int[Tensor, " total"]:
    """The order in which fill number `fill` is given out: a permutation of range(total)."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + fill) % 2**63)
    return torch.randperm(total, generator=generator)


class ActivationBuffer:
    """Room for the activations of `capacity` tokens at several sites, and for the tokens."""

    def __init__(self, capacity: int) -> None:
        self._columns: dict[AnySite, Tensor] = {}
        self._tokens = torch.empty(capacity, dtype=torch.int64)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def clear(self) -> None:
        """Forget everything; the memory is kept."""
        self._length = 0

    def append(
        self, values: dict[AnySite, Float[Tensor, "N D"]], tokens: Int[Tensor, " N"]
    ) -> None:
        """Add the activations of some tokens; there must be room for them."""
        end = self._length + len(tokens)
        assert end <= len(self._tokens)
        for site, rows in values.items():
            if site not in self._columns:
                self._columns[site] = rows.new_empty((len(self._tokens), rows.shape[1]))
            self._columns[site][self._length : end] = rows
        self._tokens[self._length : end] = tokens
        self._length = end

    def take(
        self, rows: Int[Tensor, " N"]
    ) -> tuple[dict[AnySite, Float[Tensor, "N D"]], Int[Tensor, " N"]]:
        """Copies of the given rows of every site, and their tokens."""
        values = {
            site: column.index_select(0, rows.to(column.device))
            for site, column in self._columns.items()
        }
        return values, self._tokens[rows]
