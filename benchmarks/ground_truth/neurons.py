"""The raw MLP neurons as a basis: what a learned dictionary must beat."""

import torch
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Encoder
from pellucid.models.model import LanguageModel


def neurons(model: LanguageModel) -> Basis:
    """The model's own neurons; they make no error. Gated ones are hardly ever exactly zero."""
    mlps = [model.block(layer).mlp for layer in range(model.n_layers)]

    def encoder(layer: int) -> Encoder:
        mlp = mlps[layer]

        def encode(x: Tensor) -> Tensor:
            flat = x.reshape(-1, x.shape[-1])
            return (mlp.gates(flat) * mlp.linear_part(flat)).view(*x.shape[:-1], -1)

        return encode

    is_plain = all(mlp.w_gate is None for mlp in mlps)
    zero = torch.zeros(model.d_model, dtype=model.dtype)
    no_bias = torch.zeros(mlps[0].w_in.shape[1], dtype=model.dtype)
    return Basis(
        name="neurons",
        encoders=tuple(encoder(layer) for layer in range(model.n_layers)),
        rows=tuple(mlp.w_in.T for mlp in mlps) if is_plain else None,
        biases=tuple(no_bias if mlp.b_in is None else mlp.b_in for mlp in mlps)
        if is_plain
        else None,
        decoders={(layer, layer): mlp.w_out for layer, mlp in enumerate(mlps)},
        constants=tuple(zero if mlp.b_out is None else mlp.b_out for mlp in mlps),
        dictionaries=None,
    )
