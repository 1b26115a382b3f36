"""Fast kernels from stock torch operations; not differentiable, and no [N, K, D] tensor anywhere.

`benchmarks/train_step.py` times them together. The tree halves the time of `torch.topk`, and
bags over feature-sorted pairs that of `index_add`: each weight row is touched once, in order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pellucid.kernels.pairs import FeaturePairs, RowGradients

_FANOUT = 8
_DIRECT_WIDTH = 256  # below this many columns torch.topk is faster than a level of the tree


@torch.no_grad()
def relu_topk(
    pre_NF: Float[Tensor, "N F"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    values_NK, indices_NK = _topk_tree(pre_NF, k)
    return values_NK.relu_(), indices_NK


@torch.no_grad()
def linear_relu_topk(
    inputs_ND: Float[Tensor, "N D"],
    weight_FD: Float[Tensor, "F D"],
    bias_F: Float[Tensor, " F"],
    k: int,
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"], Float[Tensor, "N F"]]:
    """`relu_topk` of pre = inputs @ weight.T + bias, and pre itself."""
    pre_NF = functional.linear(inputs_ND, weight_FD, bias_F)
    return *relu_topk(pre_NF, k), pre_NF


def _topk_tree(pre_NF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Exact top-k by groups of columns.

    Columns are grouped by their remainder modulo `stride`. The k groups with the largest maxima
    hold k largest values: a value in another group is at most that group's maximum, hence at most
    each of the k chosen maxima.
    """
    n_columns = pre_NF.shape[1]
    stride = n_columns // _FANOUT
    if n_columns <= _DIRECT_WIDTH or stride < k:
        return torch.topk(pre_NF, k, dim=1, sorted=False)
    grouped = stride * _FANOUT
    maxima_NG = pre_NF[:, :grouped].unflatten(1, (_FANOUT, stride)).amax(dim=1)
    groups_NK = _topk_tree(maxima_NG, k)[1]
    members = torch.arange(0, grouped, stride, device=pre_NF.device)
    candidates_NC = (groups_NK[:, None, :] + members[:, None]).flatten(1)
    if grouped < n_columns:
        rest = torch.arange(grouped, n_columns, device=pre_NF.device)
        candidates_NC = torch.cat([candidates_NC, rest.expand(len(pre_NF), -1)], dim=1)
    values_NK, slots_NK = torch.topk(pre_NF.gather(1, candidates_NC), k, dim=1, sorted=False)
    return values_NK, candidates_NC.gather(1, slots_NK)


@torch.no_grad()
def decode(
    values_NK: Float[Tensor, "N K"], indices_NK: Int[Tensor, "N K"], weight_FD: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    if not values_NK.shape[1]:  # embedding_bag refuses empty rows
        return weight_FD.new_zeros(len(values_NK), weight_FD.shape[1])
    return functional.embedding_bag(indices_NK, weight_FD, per_sample_weights=values_NK, mode="sum")


def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Gradients of the weights through sparse codes: see `reference.row_gradients`.

    The decoder's gradient is a weighted bag of output gradients a feature; the derivative of that
    bag by its weights, applied to the feature's decoder row, is g_p. One gather serves both.
    """
    with torch.enable_grad():
        weights_P = pairs.values.detach().requires_grad_()
        decoder_FD = _bag(output_gradients, pairs.targets, pairs.offsets, weights_P)
        (g_P,) = torch.autograd.grad(decoder_FD, weights_P, W_dec)
    return RowGradients(
        W_enc=_bag(inputs, pairs.sources, pairs.offsets, g_P),
        b_enc=g_P.new_zeros(len(W_dec)).index_add_(0, pairs.features(), g_P),
        W_dec=decoder_FD.detach(),
    )


def _bag(
    table: Float[Tensor, "N D"],
    rows: Int[Tensor, " P"],
    offsets: Int[Tensor, " F_plus_1"],
    weights: Float[Tensor, " P"],
) -> Float[Tensor, "F D"]:
    return functional.embedding_bag(
        rows, table, offsets, per_sample_weights=weights, mode="sum", include_last_offset=True
    )
