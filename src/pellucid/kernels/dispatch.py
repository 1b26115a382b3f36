"""Which implementation serves the tensors at hand: fast ones on the CPU, the definition elsewhere.

Fast kernels are not differentiable, so tensors that autograd tracks get the definition too.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.kernels import cpu, reference
from pellucid.kernels.pairs import FeaturePairs, RowGradients


def relu_topk(pre: Float[Tensor, "N F"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    return (cpu if _fast(pre) else reference).relu_topk(pre, k)


def decode(
    values: Float[Tensor, "N K"], indices: Int[Tensor, "N K"], weight: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    stored = values.shape[1] > 0  # embedding_bag refuses empty rows
    return (cpu if stored and _fast(values, weight) else reference).decode(values, indices, weight)


def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Gradients of the weights through sparse codes: see `reference.row_gradients`."""
    implementation = cpu if _fast(inputs) else reference
    return implementation.row_gradients(pairs, output_gradients, inputs, W_dec)


def _fast(*tensors: Tensor) -> bool:
    tracked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not tracked and all(tensor.device.type == "cpu" for tensor in tensors)
