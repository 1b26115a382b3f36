"""Random dictionaries of every kind and activation; no tensor is zero, so that nothing can hide."""

import torch

from pellucid.core.types import Site
from pellucid.dictionaries import (
    ACTIVATIONS,
    DICTIONARIES,
    SAE,
    Activation,
    Dictionary,
    JumpReLU,
    ReLU,
)

KINDS = ["sae", "transcoder", "skip-transcoder", "clt", "skip-clt"]
SLOTS = 3
ACTIVATION_NAMES = list(ACTIVATIONS)


def random_activation(name: str, num_features: int, generator: torch.Generator) -> Activation:
    if name in ("topk", "signed-topk"):
        return ACTIVATIONS[name](k=min(5, num_features))
    return ReLU() if name == "relu" else JumpReLU(torch.rand(num_features, generator=generator))


def random_dictionary(
    kind: str = "transcoder",
    activation: str = "topk",
    *,
    features: int = 37,
    d_in: int = 11,
    d_out: int = 7,
    layer: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    is_sae = kind == SAE.kind
    d_out = d_in if is_sae else d_out
    read_site = Site("mlp_in", layer)
    return DICTIONARIES[kind.removeprefix("skip-")](
        W_enc=draw(features, d_in),
        b_enc=draw(features),
        W_dec=draw(features, SLOTS, d_out) if kind.endswith("clt") else draw(features, d_out),
        b_dec=draw(d_out),
        W_skip=draw(d_out, d_in) if kind.startswith("skip-") else None,
        activation=random_activation(activation, features, generator),
        read_site=read_site,
        write_site=read_site if is_sae else Site("mlp_out", layer),
    ).to(dtype)
