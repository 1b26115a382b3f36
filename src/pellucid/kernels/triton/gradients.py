"""Gradients of weights through sparse codes, a feature's pairs in one program.

The pairs of a feature are neighbours, so its rows of the gradients are sums in registers, and each
output gradient and each input is fetched once a pair. A feature of many pairs is cut into parts of
`_PART`: the first part is summed into the feature's own row, the others into rows below the last
feature, which a second kernel adds in order. No atomics: a result is the same on every run.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels import reference
from pellucid.kernels.pairs import FeaturePairs, RowGradients
from pellucid.kernels.triton.runtime import power_of_two, sum_type, warps

_PART = 512
_TILE = 4096  # values of output gradients that one program holds at once
_WIDEST = 16384  # the row of an encoder or decoder that one program's registers hold


@triton.jit
def pairs_kernel(
    values,
    targets,
    sources,
    offsets,
    owners,
    numbers,
    output_gradients,
    inputs,
    W_dec,
    encoder,
    bias,
    decoder,
    n_features,
    d_in,
    d_out,
    PART: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """The sums of one part of one feature's pairs."""
    row = tl.program_id(0).to(tl.int64)
    feature, number = row, row - row
    if row >= n_features:
        feature = tl.load(owners + row - n_features)
        number = tl.load(numbers + row - n_features)
    if feature < n_features:
        start = tl.load(offsets + feature) + number * PART
        stop = tl.minimum(start + PART, tl.load(offsets + feature + 1))
        column_in, column_out = tl.arange(0, BLOCK_IN), tl.arange(0, BLOCK_OUT)
        live_in, live_out = column_in < d_in, column_out < d_out
        read = tl.load(W_dec + feature * d_out + column_out, mask=live_out, other=0.0).to(SUM)
        encoder_row = tl.full((BLOCK_IN,), 0.0, SUM)
        decoder_row = tl.full((BLOCK_OUT,), 0.0, SUM)
        bias_sum = tl.full((BLOCK_P,), 0.0, SUM)
        for first in range(start, stop, BLOCK_P):
            pair = first + tl.arange(0, BLOCK_P)
            live = pair < stop
            value = tl.load(values + pair, mask=live, other=0.0).to(SUM)
            target = tl.load(targets + pair, mask=live, other=0)
            source = tl.load(sources + pair, mask=live, other=0)
            out = tl.load(
                output_gradients + target[:, None] * d_out + column_out[None, :],
                mask=live[:, None] & live_out[None, :],
                other=0.0,
            ).to(SUM)
            x = tl.load(
                inputs + source[:, None] * d_in + column_in[None, :],
                mask=live[:, None] & live_in[None, :],
                other=0.0,
            ).to(SUM)
            g = tl.sum(out * read[None, :], axis=1)
            decoder_row += tl.sum(value[:, None] * out, axis=0)
            encoder_row += tl.sum(g[:, None] * x, axis=0)
            bias_sum += g
        element = decoder.dtype.element_ty
        tl.store(encoder + row * d_in + column_in, encoder_row.to(element), mask=live_in)
        tl.store(decoder + row * d_out + column_out, decoder_row.to(element), mask=live_out)
        tl.store(bias + row, tl.sum(bias_sum, axis=0).to(element))


@triton.jit
def parts_kernel(rows, further, ends, n_features, width, SUM: tl.constexpr, BLOCK: tl.constexpr):
    """Add to one feature's row the rows of its further parts, which end at row `ends`."""
    feature = tl.program_id(0).to(tl.int64)
    count = tl.load(further + feature)
    if count > 0:
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        live = column < width
        total = tl.load(rows + feature * width + column, mask=live, other=0.0).to(SUM)
        stop = n_features + tl.load(ends + feature)
        for part in range(stop - count, stop):
            total += tl.load(rows + part * width + column, mask=live, other=0.0).to(SUM)
        element = rows.dtype.element_ty
        tl.store(rows + feature * width + column, total.to(element), mask=live)


@torch.no_grad()
def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Gradients of the weights through sparse codes: see `reference.row_gradients`."""
    (n_features, d_out), d_in = W_dec.shape, inputs.shape[1]
    if max(d_in, d_out) > _WIDEST:
        return reference.row_gradients(pairs, output_gradients, inputs, W_dec)
    parts = _Parts(pairs.offsets, len(pairs.values))
    rows = n_features + parts.most
    found = RowGradients(
        W_enc=W_dec.new_empty(rows, d_in),
        b_enc=W_dec.new_empty(rows),
        W_dec=W_dec.new_empty(rows, d_out),
    )
    widest = power_of_two(max(d_in, d_out))
    with torch.cuda.device_of(W_dec):
        pairs_kernel[(rows,)](
            pairs.values,
            pairs.targets,
            pairs.sources,
            pairs.offsets,
            parts.owners,
            parts.numbers,
            output_gradients.contiguous(),
            inputs.contiguous(),
            W_dec.contiguous(),
            *found,
            n_features,
            d_in,
            d_out,
            PART=_PART,
            SUM=sum_type(W_dec.dtype),
            BLOCK_P=min(max(_TILE // widest, 1), 16),
            BLOCK_IN=power_of_two(d_in),
            BLOCK_OUT=power_of_two(d_out),
            num_warps=min(warps(widest), 16),
        )
        if parts.most:
            for gradient in found:
                parts.add(gradient, n_features)
    return RowGradients(*(gradient[:n_features] for gradient in found))


class _Parts:
    """Which feature the rows below the last feature belong to.

    How many parts there are is known to the GPU alone, and reading it would stop the queue; `most`
    is the most that so many pairs can need.

    Attributes:
        most: rows below the last feature.
        further: how many parts a feature has beyond its first.
        ends: running sum of `further`.
        owners: the feature of each of those rows, or F where a row is not needed.
        numbers: which part of that feature it is, from 1.
    """

    def __init__(self, offsets: Int[Tensor, " F_plus_1"], n_pairs: int) -> None:
        self.most = n_pairs // _PART
        self.further = (offsets.diff() - 1).clamp_min(0) // _PART
        self.ends = self.further.cumsum(0)
        places = torch.arange(self.most, device=offsets.device)
        self.owners = torch.searchsorted(self.ends, places, right=True)
        owned = self.owners.clamp_max(len(self.ends) - 1)
        self.numbers = places - (self.ends - self.further)[owned] + 1

    def add(self, rows: Float[Tensor, "R ..."], n_features: int) -> None:
        """Add the rows of further parts to those of their features, in place."""
        width = rows[0].numel()
        block = min(power_of_two(width), 1024)
        parts_kernel[(n_features, triton.cdiv(width, block))](
            rows,
            self.further,
            self.ends,
            n_features,
            width,
            SUM=sum_type(rows.dtype),
            BLOCK=block,
            num_warps=warps(block),
        )
