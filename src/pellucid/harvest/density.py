"""How often features fire: the density of a feature is the share of tokens that activate it."""

import torch
from jaxtyping import Int
from torch import Tensor

DENSE_ABOVE = 0.1
"""A feature is dense when it is active on more than this share of the tokens measured."""
DENSITY_EDGES = tuple(-6 + 0.5 * edge for edge in range(13))
"""Edges of the histogram's bins, in log10 of the density; the first bin takes all below it too."""


def dense_share(fires: Int[Tensor, " F"], tokens: int) -> float:
    """The share of features that are active on more than `DENSE_ABOVE` of the tokens.

    Args:
        fires: at how many tokens each feature is active.
        tokens: how many there were.
    """
    return int((fires > DENSE_ABOVE * tokens).sum()) / len(fires)


def density_histogram(fires: Int[Tensor, " F"], tokens: int) -> list[int]:
    """How many features have a density in each bin of `DENSITY_EDGES`.

    A bin holds its lower edge, the last one its upper edge too. Features that never fire are in no
    bin: they are the dead ones.

    Args:
        fires: at how many tokens each feature is active.
        tokens: how many there were.
    """
    log_density = (fires[fires > 0].double() / tokens).log10()
    inner = torch.tensor(DENSITY_EDGES[1:-1], dtype=log_density.dtype)
    bins = torch.bucketize(log_density, inner, right=True)
    return torch.bincount(bins, minlength=len(DENSITY_EDGES) - 1).tolist()
