"""Who shares a sum: the processes over which tokens, or features, of one training are spread."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Team(NamedTuple):
    """Processes that each hold a part of something, or one process that holds it whole.

    Attributes:
        size: how many there are.
        rank: which of them this is.
        group: how they talk; None where there is one alone.
    """

    size: int = 1
    rank: int = 0
    group: "dist.ProcessGroup | None" = None

    def sum(self, part: Tensor) -> Tensor:
        """The sum of every process's `part`, which is overwritten with it."""
        if self.group is not None:
            dist.all_reduce(part, group=self.group)
        return part

    def stack(self, part: Tensor) -> Tensor:
        """Every process's `part` of one shape, one after the other in a new first dimension."""
        if self.group is None:
            return part[None]
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.group)
        return torch.stack(parts)

    def share(self, total: int) -> slice:
        """This process's part of `total` things in a row.

        Parts differ by one at most; the first ones are the longer.
        """
        small, longer = divmod(total, self.size)
        start = self.rank * small + min(self.rank, longer)
        return slice(start, start + small + (self.rank < longer))


class Teams(NamedTuple):
    """Over which processes a step is spread.

    Attributes:
        tokens: each trains on other tokens of the batch.
        features: each holds other features of the dictionary, and sees the same tokens.
    """

    tokens: Team = Team()
    features: Team = Team()


ALONE = Teams()
