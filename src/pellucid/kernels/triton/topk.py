"""Exact top-k in two stages: of the maxima of groups of columns, then within the chosen groups.

The k groups with the largest maxima hold k largest values: a value in another group is at most
that group's maximum, hence at most each of the k chosen maxima.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels.triton.runtime import power_of_two
from pellucid.kernels.triton.selection import group_maxima, select, select_groups

_DIRECT_WIDTH = 2048  # up to this many columns one selection is cheaper than two
_LARGEST_GROUP = 64
_LARGEST_BLOCK = 8192  # candidates that one program holds without spilling


@torch.no_grad()
def relu_topk(
    pre_NF: Float[Tensor, "N F"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    pre_NF = pre_NF.contiguous()
    with torch.cuda.device_of(pre_NF):
        group = group_size(pre_NF.shape[1], k)
        if group is None:
            return direct(pre_NF, k)
        return within_groups(pre_NF, group_maxima(pre_NF, group), group, k)


def group_size(n_columns: int, k: int) -> int | None:
    """How many columns make a group, or None where groups do not pay.

    Both stages together look at n_columns / group + k * group values, fewest near the root of
    n_columns / k.

    Raises:
        ValueError: k exceeds the number of columns.
    """
    if k > n_columns:
        raise ValueError(f"k is {k}, and there are only {n_columns} columns to choose from")
    if n_columns <= _DIRECT_WIDTH:
        return None
    group = min(power_of_two(round((n_columns / max(k, 1)) ** 0.5)), _LARGEST_GROUP)
    n_groups = -(-n_columns // group)
    fits = max(n_groups, k * group) <= _LARGEST_BLOCK
    return group if group > 1 and n_groups > k and fits else None


def direct(pre_NF: Float[Tensor, "N F"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """One selection over all columns; torch's own where they are more than a program holds."""
    if pre_NF.shape[1] <= _LARGEST_BLOCK:
        return select(pre_NF, k)
    values_NK, columns_NK = torch.topk(pre_NF, k, dim=1, sorted=False)
    return values_NK.relu_(), columns_NK


def within_groups(
    pre_NF: Float[Tensor, "N F"], maxima_NG: Float[Tensor, "N G"], group: int, k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest, given the maximum of every group."""
    return select(pre_NF, k, select_groups(maxima_NG, k), group)
