"""Random transcoders for the tiny models: every tensor is non-zero, so that nothing can hide."""

import torch

from pellucid.core.types import Site
from pellucid.dictionaries.activations import Activation, ReLU, TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.models.model import LanguageModel


def tiny_transcoders(
    model: LanguageModel,
    *,
    skip: bool = False,
    activation: Activation | None = None,
    features: int = 24,
    seed: int = 0,
) -> DictionarySet:
    """One random transcoder a layer (TopK with k = 3 unless another activation is given)."""
    generator = torch.Generator().manual_seed(seed)
    width = model.d_model

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(model.dtype) / width**0.5

    return DictionarySet(
        "tiny",
        {
            layer: Transcoder(
                W_enc=draw(features, width),
                b_enc=draw(features),
                W_dec=draw(features, width),
                b_dec=draw(width),
                W_skip=draw(width, width) if skip else None,
                activation=activation or TopK(3),
                read_site=Site("mlp_in", layer),
                write_site=Site("mlp_out", layer),
            )
            for layer in range(model.n_layers)
        },
    )


def relu() -> Activation:
    """Every positive pre-activation: a different number of features at each position."""
    return ReLU()
