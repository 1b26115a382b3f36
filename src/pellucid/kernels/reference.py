"""The definition of every kernel, written to be read; fast versions are tested against it.

They run on any device and in any dtype. Shape suffixes: N tokens, F features, K codes a token,
D width, P pairs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pellucid.kernels.pairs import FeaturePairs, RowGradients


def relu_topk(
    pre_NF: Float[Tensor, "N F"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    values_NK, indices_NK = torch.topk(pre_NF, k, dim=1, sorted=False)
    return torch.relu(values_NK), indices_NK


def linear_relu_topk(
    inputs_ND: Float[Tensor, "N D"],
    weight_FD: Float[Tensor, "F D"],
    bias_F: Float[Tensor, " F"],
    k: int,
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"], Float[Tensor, "N F"]]:
    """`relu_topk` of pre = inputs @ weight.T + bias, and pre itself."""
    pre_NF = functional.linear(inputs_ND, weight_FD, bias_F)
    return *relu_topk(pre_NF, k), pre_NF


def decode(
    values_NK: Float[Tensor, "N K"], indices_NK: Int[Tensor, "N K"], weight_FD: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    return torch.einsum("nk,nkd->nd", values_NK, weight_FD[indices_NK])


def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Chain rule through sparse codes: from gradients of what is decoded to those of the weights.

    With a_p the value of pair p, f its feature, t its target and s its source, and
    g_p = <output_gradients[t], W_dec[f]>: the sums over the pairs of each feature of
    a_p * output_gradients[t] (W_dec), g_p * inputs[s] (W_enc) and g_p (b_enc). Every pair is
    active, so the slope of its activation is 1.
    """
    features_P, num_features = pairs.features(), len(W_dec)
    targets_PD = output_gradients[pairs.targets]
    g_P = (targets_PD * W_dec[features_P]).sum(dim=1)
    encoder_PD = g_P[:, None] * inputs[pairs.sources]
    return RowGradients(
        W_enc=_sum_by_feature(encoder_PD, features_P, num_features),
        b_enc=_sum_by_feature(g_P, features_P, num_features),
        W_dec=_sum_by_feature(pairs.values[:, None] * targets_PD, features_P, num_features),
    )


def _sum_by_feature(
    terms: Float[Tensor, "P ..."], features: Int[Tensor, " P"], num_features: int
) -> Float[Tensor, "F ..."]:
    return terms.new_zeros((num_features, *terms.shape[1:])).index_add(0, features, terms)
