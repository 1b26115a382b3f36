"""Sparse decoding: each token's decoder rows, weighted and added in registers."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels.triton.runtime import power_of_two, sum_type, warps

_TILE = 4096  # values of decoder rows that a program holds at once
_WIDEST = 1024


@triton.jit
def decode_kernel(
    values,
    indices,
    weight,
    out,
    k,
    width,
    SUM: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A block of columns of one token's output."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    live_column = column < width
    total = tl.full((BLOCK_D,), 0.0, SUM)
    for first in range(0, k, BLOCK_K):
        slot = first + tl.arange(0, BLOCK_K)
        live = slot < k
        value = tl.load(values + token * k + slot, mask=live, other=0.0).to(SUM)
        feature = tl.load(indices + token * k + slot, mask=live, other=0)
        rows = tl.load(
            weight + feature[:, None] * width + column[None, :],
            mask=live[:, None] & live_column[None, :],
            other=0.0,
        )
        total += tl.sum(value[:, None] * rows.to(SUM), axis=0)
    tl.store(out + token * width + column, total.to(out.dtype.element_ty), mask=live_column)


@torch.no_grad()
def decode(
    values_NK: Float[Tensor, "N K"], indices_NK: Int[Tensor, "N K"], weight_FD: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    (n_tokens, k), width = values_NK.shape, weight_FD.shape[1]
    out_ND = weight_FD.new_empty(n_tokens, width)
    block = min(power_of_two(width), _WIDEST)
    with torch.cuda.device_of(weight_FD):
        decode_kernel[(n_tokens, triton.cdiv(width, block))](
            values_NK.contiguous(),
            indices_NK.contiguous(),
            weight_FD.contiguous(),
            out_ND,
            k,
            width,
            SUM=sum_type(weight_FD.dtype),
            BLOCK_K=min(power_of_two(k), _TILE // block),
            BLOCK_D=block,
            num_warps=warps(block),
        )
    return out_ND
