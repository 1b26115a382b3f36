"""Which implementation serves the tensors at hand: fast ones on the CPU, the definition elsewhere.

Fast kernels are not differentiable: tensors that autograd tracks are decoded by `tracked.py`, and
have their k largest chosen by the definition.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels import cpu, reference, tracked
from pellucid.kernels.pairs import FeaturePairs, RowGradients


def relu_topk(pre: Float[Tensor, "N F"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    return (cpu if _fast(pre) else reference).relu_topk(pre, k)


def decode(
    values: Float[Tensor, "N K"], indices: Int[Tensor, "N K"], weight: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    if not values.shape[1]:  # embedding_bag refuses empty rows
        return reference.decode(values, indices, weight)
    if is_tracked(values, weight):
        return tracked.decode(values, indices, weight)
    return (cpu if _fast(values, weight) else reference).decode(values, indices, weight)


def encode(
    inputs: Float[Tensor, "N D"],
    weight: Float[Tensor, "F D"],
    bias: Float[Tensor, " F"],
    values: Float[Tensor, "N K"],
    indices: Int[Tensor, "N K"],
) -> Float[Tensor, "N K"]:
    """Values found without autograd, tied to what they were computed from: see `tracked.encode`."""
    return tracked.encode(inputs, weight, bias, values, indices)


def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Gradients of the weights through sparse codes: see `reference.row_gradients`."""
    implementation = cpu if _fast(inputs) else reference
    return implementation.row_gradients(pairs, output_gradients, inputs, W_dec)


def is_tracked(*tensors: Tensor) -> bool:
    """Whether autograd follows what is computed from these."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _fast(*tensors: Tensor) -> bool:
    return not is_tracked(*tensors) and all(tensor.device.type == "cpu" for tensor in tensors)
