"""Encoder product whose epilogue takes the maximum of every group of features.

Pre-activations are written, once, in the inputs' type. Of each row only the k chosen groups are
read again: k * group values, where computing them anew would read as many rows of the weight.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pellucid.kernels.triton import runtime
from pellucid.kernels.triton.topk import group_size, relu_topk, within_groups


@triton.jit
def product_kernel(
    inputs,
    weight,
    bias,
    pre,
    maxima,
    n_tokens,
    n_features,
    width,
    n_groups,
    GROUP: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """A tile of inputs @ weight.T + bias a program, TOGETHER tiles of tokens in a row.

    WIDEN multiplies in float32, for the interpreter, whose product of bfloat16 is wrong.
    """
    token_tiles = tl.cdiv(n_tokens, BLOCK_N)
    feature_tiles = tl.cdiv(n_features, BLOCK_F)
    strip = tl.program_id(0) // (TOGETHER * feature_tiles)
    within = tl.program_id(0) % (TOGETHER * feature_tiles)
    in_strip = tl.minimum(token_tiles - strip * TOGETHER, TOGETHER)
    token_tile = strip * TOGETHER + within % in_strip
    feature_tile = within // in_strip

    token = token_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    feature = feature_tile * BLOCK_F + tl.arange(0, BLOCK_F)
    depth = tl.arange(0, BLOCK_D)
    token_row = inputs + token.to(tl.int64)[:, None] * width
    feature_row = weight + feature.to(tl.int64)[None, :] * width
    live_token, live_feature = token[:, None] < n_tokens, feature[None, :] < n_features
    total = tl.full((BLOCK_N, BLOCK_F), 0.0, tl.float32)
    for start in range(0, width, BLOCK_D):
        at = start + depth
        x = tl.load(token_row + at[None, :], mask=live_token & (at[None, :] < width), other=0.0)
        w = tl.load(feature_row + at[:, None], mask=live_feature & (at[:, None] < width), other=0.0)
        if WIDEN:
            x, w = x.to(tl.float32), w.to(tl.float32)
        total = tl.dot(x, w, total)
    total += tl.load(bias + feature, mask=feature < n_features, other=0.0).to(tl.float32)[None, :]

    place = token.to(tl.int64)[:, None] * n_features + feature[None, :]
    tl.store(pre + place, total.to(pre.dtype.element_ty), mask=live_token & live_feature)
    ranked = tl.where(total != total, float("inf"), total)
    ranked = tl.where(live_feature, ranked, float("-inf"))
    largest = tl.max(tl.reshape(ranked, (BLOCK_N, BLOCK_F // GROUP, GROUP)), axis=2)
    group = feature_tile * (BLOCK_F // GROUP) + tl.arange(0, BLOCK_F // GROUP)
    place = token.to(tl.int64)[:, None] * n_groups + group[None, :]
    tl.store(
        maxima + place,
        largest.to(maxima.dtype.element_ty),
        mask=live_token & (group[None, :] < n_groups),
    )


# Tokens, features and depth of a tile, warps, stages.
TILES = ((128, 256, 64, 8, 3), (128, 128, 64, 8, 3), (128, 128, 64, 4, 4), (64, 128, 64, 4, 4))
_INTERPRETED_TILE = {"BLOCK_N": 32, "BLOCK_F": 512, "BLOCK_D": 64, "TOGETHER": 2}


@cache
def _tuned() -> Any:
    """The kernel with its tile chosen by a trial of each on this GPU, once a shape of weight."""
    configs = [
        triton.Config(
            {"BLOCK_N": n, "BLOCK_F": f, "BLOCK_D": d, "TOGETHER": 8},
            num_warps=n_warps,
            num_stages=stages,
        )
        for n, f, d, n_warps, stages in TILES
    ]
    return triton.autotune(configs, key=["n_features", "width", "GROUP"])(product_kernel)


@torch.no_grad()
def linear_relu_topk(
    inputs_ND: Float[Tensor, "N D"],
    weight_FD: Float[Tensor, "F D"],
    bias_F: Float[Tensor, " F"],
    k: int,
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"], Float[Tensor, "N F"]]:
    """The k largest of max(inputs @ weight.T + bias, 0) in each row: see `reference.py`.

    The product is ours, with maxima, in 16-bit types; float32 and float64 keep torch's.
    """
    group = group_size(len(weight_FD), k)
    if group is None or weight_FD.dtype.itemsize > 2:
        pre_NF = functional.linear(inputs_ND, weight_FD, bias_F)
        return *relu_topk(pre_NF, k), pre_NF
    with torch.cuda.device_of(inputs_ND):
        pre_NF, maxima_NG = product(inputs_ND, weight_FD, bias_F, group)
        return *within_groups(pre_NF, maxima_NG, group, k), pre_NF


def product(
    inputs_ND: Float[Tensor, "N D"],
    weight_FD: Float[Tensor, "F D"],
    bias_F: Float[Tensor, " F"],
    group: int,
) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N G"]]:
    """inputs @ weight.T + bias, and the largest of every `group` neighbouring columns."""
    (n_tokens, width), n_features = inputs_ND.shape, len(weight_FD)
    n_groups = triton.cdiv(n_features, group)
    pre_NF = inputs_ND.new_empty(n_tokens, n_features)
    maxima_NG = inputs_ND.new_empty(n_tokens, n_groups)

    def grid(tile: dict[str, int]) -> tuple[int]:
        tiles = triton.cdiv(n_tokens, tile["BLOCK_N"]) * triton.cdiv(n_features, tile["BLOCK_F"])
        return (tiles,)

    interpreted = runtime.INTERPRETED
    kernel = product_kernel if interpreted else _tuned()
    kernel[grid](
        inputs_ND.contiguous(),
        weight_FD.contiguous(),
        bias_F.contiguous(),
        pre_NF,
        maxima_NG,
        n_tokens,
        n_features,
        width,
        n_groups,
        GROUP=group,
        WIDEN=interpreted,
        **(_INTERPRETED_TILE if interpreted else {}),
    )
    return pre_NF, maxima_NG
