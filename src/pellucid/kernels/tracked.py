"""Sparse encoding and decoding that autograd can go back through, at the cost of the stored pairs.

The definition's gradients build a tensor [N, K, D], and a dense encoder's a matrix [N, F]. Here the
backward pass regroups the (token, feature) pairs by feature, so that each weight row is touched
once, in order: 2kD operations a token for each gradient and no tensor larger than its result.
Stock torch operations, on any device. `reference.py` says what is computed; only first derivatives
are offered.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional


def decode(
    values: Float[Tensor, "N K"], indices: Int[Tensor, "N K"], weight: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]; see `reference.decode`."""
    return _Decode.apply(values, indices, weight)


def encode(
    inputs: Float[Tensor, "N D"],
    weight: Float[Tensor, "F D"],
    bias: Float[Tensor, " F"],
    values: Float[Tensor, "N K"],
    indices: Int[Tensor, "N K"],
) -> Float[Tensor, "N K"]:
    """Values found without autograd, tied to what they were computed from.

    Args:
        inputs: what the encoder multiplies.
        weight: the encoder.
        bias: its bias.
        values: inputs @ weight.T + bias at the active features, 0 elsewhere: an active feature's
            slope is 1, as with TopK, ReLU and JumpReLU, every other's 0.
        indices: the feature of each value.
    """
    return _Encode.apply(inputs, weight, bias, values, indices)


class _Pairs:
    """Stored (token, feature) pairs in the order of their features."""

    def __init__(self, indices_NK: Tensor, num_features: int) -> None:
        flat = indices_NK.flatten()
        self.order = flat.argsort(stable=True)
        self.tokens = self.order // indices_NK.shape[1]
        ends = torch.bincount(flat, minlength=num_features).cumsum(0)
        self.offsets = torch.cat([ends.new_zeros(1), ends])

    def bag(self, table_ND: Tensor, weights_P: Tensor) -> Tensor:
        """Row f is the sum over the pairs p of feature f of weights[p] * table[token of p]."""
        return functional.embedding_bag(
            self.tokens,
            table_ND,
            self.offsets,
            per_sample_weights=weights_P,
            mode="sum",
            include_last_offset=True,
        )


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_NK: Tensor, indices_NK: Tensor, weight_FD: Tensor) -> Tensor:
        ctx.save_for_backward(values_NK, indices_NK, weight_FD)
        return functional.embedding_bag(
            indices_NK, weight_FD, per_sample_weights=values_NK, mode="sum"
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """The decoder's gradient is a bag of output gradients a feature.

        That bag's derivative by its weights, applied to the decoder's rows, is the gradient of the
        values: one gather serves both.
        """
        values_NK, indices_NK, weight_FD = ctx.saved_tensors
        pairs = _Pairs(indices_NK, len(weight_FD))
        with torch.enable_grad():
            weights_P = values_NK.detach().flatten()[pairs.order].requires_grad_()
            rows_FD = pairs.bag(gradient_ND.contiguous(), weights_P)
            (slopes_P,) = torch.autograd.grad(rows_FD, weights_P, weight_FD)
        values_gradient = torch.empty_like(slopes_P)
        values_gradient[pairs.order] = slopes_P
        return values_gradient.view_as(values_NK), None, rows_FD.detach()


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        inputs_ND: Tensor,
        weight_FD: Tensor,
        bias_F: Tensor,
        values_NK: Tensor,
        indices_NK: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(inputs_ND, weight_FD, values_NK, indices_NK)
        return values_NK.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient_NK: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        inputs_ND, weight_FD, values_NK, indices_NK = ctx.saved_tensors
        slopes_NK = torch.where(values_NK != 0, gradient_NK, 0)
        of_inputs = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_inputs = functional.embedding_bag(
                indices_NK, weight_FD, per_sample_weights=slopes_NK, mode="sum"
            )
        if ctx.needs_input_grad[1]:
            pairs = _Pairs(indices_NK, len(weight_FD))
            of_weight = pairs.bag(inputs_ND, slopes_NK.flatten()[pairs.order])
        if ctx.needs_input_grad[2]:
            zeros_F = slopes_NK.new_zeros(len(weight_FD))
            of_bias = zeros_F.index_add_(0, indices_NK.flatten(), slopes_NK.flatten())
        return of_inputs, of_weight, of_bias, None, None
