"""What every measure of absorption needs: who writes a direction, and which directions agree.

A feature is absorbed (Chanin et al. 2024) where it should be active but is silent, because a more
specific feature that is active there writes its direction too.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.types import SparseCodes

DEVIATIONS = 3.0
"""How many standard deviations of a random cosine count as the same direction."""


def aligned_above(width: int) -> float:
    """The cosine above which two directions of `width` dimensions are no accident."""
    return DEVIATIONS / width**0.5


def strongest_writer(
    codes: SparseCodes,
    tokens: Int[Tensor, " n"],
    written: Float[Tensor, "F C"],
    columns: Int[Tensor, " n"],
) -> Int[Tensor, " n"]:
    """The active feature that writes most along a direction, case by case; -1 for none active.

    Args:
        codes: activations.
        tokens: the token of each case.
        written: what a unit activation of each feature writes along each of C directions.
        columns: the direction of each case.
    """
    if not codes.values.shape[1]:
        return torch.full_like(tokens, -1)
    values, indices = codes.values[tokens], codes.indices[tokens].long()
    active: Bool[Tensor, "n K"] = values != 0
    shares = (values * written[indices, columns[:, None]]).masked_fill(~active, -torch.inf)
    best = shares.argmax(dim=1, keepdim=True)
    return torch.where(active.any(dim=1), indices.gather(1, best)[:, 0], -1)
