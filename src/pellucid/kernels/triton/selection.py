"""The k largest of a row, found bit by bit, and the largest of each group of columns.

Values become unsigned integers of the same order. The k-th largest is then built from its highest
bit down: a bit is set if at least k values are no less than what that makes. The work does not
depend on k, any k is served, and of equal values those in the first columns are taken.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels.triton.runtime import INTERPRETED, power_of_two, warps

# Values of 16 bits leave the low bits of the wider type they are read as empty.
_KEY_BITS = {torch.float64: 64, torch.float32: 32, torch.float16: 19, torch.bfloat16: 16}
_MAXIMA_BLOCK = 2048
_SMALLEST_BLOCK = 1024  # narrower rows share a program
_INTERPRETED_ROWS = 16


@triton.jit
def ordered_keys(values, WIDE: tl.constexpr, KEY_BITS: tl.constexpr):
    """Unsigned integers in the order of `values`, NaN above all, 0 left free for no value."""
    if WIDE:
        bits = values.to(tl.int64, bitcast=True)
        flipped = tl.where(bits < 0, ~bits, bits ^ (-9223372036854775807 - 1))
        keys = flipped.to(tl.uint64, bitcast=True)
    else:
        bits = values.to(tl.int32, bitcast=True)
        flipped = tl.where(bits < 0, ~bits, bits ^ -2147483648)
        keys = flipped.to(tl.uint32, bitcast=True) >> (32 - KEY_BITS)
    highest = (tl.full(keys.shape, 1, keys.dtype) << (KEY_BITS - 1)) * 2 - 1
    return tl.where(values != values, highest, keys)


@triton.jit
def select_kernel(
    scores,
    groups,
    values,
    columns,
    n_rows,
    n_columns,
    k,
    GROUP: tl.constexpr,
    VALUES: tl.constexpr,
    WIDE: tl.constexpr,
    KEY_BITS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The k largest of all columns of ROWS rows, or of those in k groups a row if GROUP > 1."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    slots = tl.arange(0, BLOCK)[None, :]
    if GROUP == 1:
        live = (row < n_rows) & (slots < n_columns)
        column = slots
    else:
        live = (row < n_rows) & (slots < k * GROUP)
        chosen = tl.load(groups + row * k + slots // GROUP, mask=live, other=0)
        column = chosen * GROUP + slots % GROUP
        live = live & (column < n_columns)
    value = tl.load(scores + row * n_columns + column, mask=live, other=0.0)
    value = value.to(tl.float64 if WIDE else tl.float32)
    keys = ordered_keys(value, WIDE, KEY_BITS)
    keys = tl.where(live, keys, 0)

    one = tl.full((ROWS, 1), 1, keys.dtype)
    threshold = one - one
    for place in range(KEY_BITS):
        trial = threshold | (one << (KEY_BITS - 1 - place))
        reached = tl.sum((keys >= trial).to(tl.int32), axis=1)[:, None]
        threshold = tl.where(reached >= k, trial, threshold)
    above, equal = keys > threshold, keys == threshold
    wanted = k - tl.sum(above.to(tl.int32), axis=1)[:, None]
    taken = live & (above | (equal & (tl.cumsum(equal.to(tl.int32), 1) <= wanted)))
    position = row * k + tl.cumsum(taken.to(tl.int32), 1) - 1
    tl.store(columns + position, column.to(columns.dtype.element_ty), mask=taken)
    if VALUES:
        tl.store(values + position, tl.where(value < 0, 0.0, value), mask=taken)


@triton.jit
def maxima_kernel(
    scores,
    maxima,
    n_columns,
    n_groups,
    GROUP: tl.constexpr,
    WIDE: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """The largest of each group of GROUP neighbouring columns; infinity if one is NaN."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    value = tl.load(
        scores + row * n_columns + column, mask=column < n_columns, other=float("-inf")
    ).to(tl.float64 if WIDE else tl.float32)
    largest = tl.max(tl.where(value != value, float("inf"), value), axis=1)
    tl.store(maxima + row * n_groups + group, largest, mask=group < n_groups)


def group_maxima(scores_NF: Float[Tensor, "N F"], group: int) -> Float[Tensor, "N G"]:
    """The largest of every `group` neighbouring columns (a power of two)."""
    n_rows, n_columns = scores_NF.shape
    n_groups = triton.cdiv(n_columns, group)
    maxima_NG = scores_NF.new_empty(n_rows, n_groups)
    together = min(power_of_two(n_groups), max(1, _MAXIMA_BLOCK // group))
    maxima_kernel[(n_rows, triton.cdiv(n_groups, together))](
        scores_NF,
        maxima_NG,
        n_columns,
        n_groups,
        GROUP=group,
        WIDE=scores_NF.dtype == torch.float64,
        GROUPS=together,
    )
    return maxima_NG


def select_groups(maxima_NG: Float[Tensor, "N G"], k: int) -> Int[Tensor, "N K"]:
    """The k groups of each row with the largest maxima, as int32."""
    groups_NK = torch.empty(len(maxima_NG), k, dtype=torch.int32, device=maxima_NG.device)
    _select(maxima_NG, groups_NK, None)
    return groups_NK


def select(
    pre_NF: Float[Tensor, "N F"],
    k: int,
    groups_NK: Int[Tensor, "N K"] | None = None,
    group: int = 1,
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in order of column.

    With `groups_NK` only the columns of those groups of `group` neighbours are candidates.
    """
    values_NK = pre_NF.new_empty(len(pre_NF), k)
    columns_NK = torch.empty(len(pre_NF), k, dtype=torch.int64, device=pre_NF.device)
    _select(pre_NF, columns_NK, values_NK, groups_NK, group)
    return values_NK, columns_NK


def _select(
    scores_NF: Float[Tensor, "N F"],
    columns_NK: Int[Tensor, "N K"],
    values_NK: Float[Tensor, "N K"] | None,
    groups_NK: Int[Tensor, "N K"] | None = None,
    group: int = 1,
) -> None:
    (n_rows, n_columns), k = scores_NF.shape, columns_NK.shape[1]
    block = power_of_two(n_columns if groups_NK is None else k * group)
    rows = _INTERPRETED_ROWS if INTERPRETED else max(1, _SMALLEST_BLOCK // block)
    select_kernel[(triton.cdiv(n_rows, rows),)](
        scores_NF,
        columns_NK if groups_NK is None else groups_NK,
        scores_NF if values_NK is None else values_NK,
        columns_NK,
        n_rows,
        n_columns,
        k,
        GROUP=1 if groups_NK is None else group,
        VALUES=values_NK is not None,
        WIDE=scores_NF.dtype == torch.float64,
        KEY_BITS=_KEY_BITS[scores_NF.dtype],
        ROWS=rows,
        BLOCK=block,
        num_warps=warps(rows * block),
    )
