"""The raw MLP neurons as a basis: what a learned dictionary must beat."""

import torch
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Encoder
from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.models.model import LanguageModel
from benchmarks.ground_truth.basis import from_dictionaries


def relu_neurons(model: LanguageModel) -> Basis:
    """The neurons of a GPT-2 with ReLU, which are exactly a transcoder that makes no error."""
    dictionaries = {}
    for layer in range(model.n_layers):
        mlp = model.module.transformer.h[layer].mlp
        dictionaries[layer] = Transcoder(
            W_enc=mlp.c_fc.weight.detach().T.contiguous(),
            b_enc=mlp.c_fc.bias.detach(),
            W_dec=mlp.c_proj.weight.detach(),
            b_dec=mlp.c_proj.bias.detach(),
            activation=ReLU(),
            read_site=Site("mlp_in", layer),
            write_site=Site("mlp_out", layer),
        )
    return from_dictionaries("neurons", DictionarySet("neurons", dictionaries))


def gated_neurons(model: LanguageModel) -> Basis:
    """The neurons of a Llama: act(gate x) * (up x), none of them ever exactly zero."""

    def encoder(mlp: torch.nn.Module) -> Encoder:
        def encode(x: Tensor) -> Tensor:
            return mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)

        return encode

    mlps = [model.module.model.layers[layer].mlp for layer in range(model.n_layers)]
    zero = torch.zeros(model.d_model, dtype=model.dtype)
    return Basis(
        name="neurons",
        encoders=tuple(encoder(mlp) for mlp in mlps),
        rows=None,
        biases=None,
        decoders={(n, n): mlp.down_proj.weight.detach().T for n, mlp in enumerate(mlps)},
        constants=tuple(zero for _ in mlps),
    )
