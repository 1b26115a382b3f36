"""Random dictionaries for the tiny models: no tensor is zero, so that nothing can hide."""

import torch

from pellucid.core.types import Site
from pellucid.dictionaries.activations import Activation, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.models.model import LanguageModel

BASES = ("plt", "skip", "clt", "clt-mid", "sae", "neurons", "gates", "error", "mixed")
"""What the layers of a tiny model can be taken apart into; see `tiny_basis`."""


def tiny_dictionary(
    model: LanguageModel,
    kind: str,
    layer: int,
    *,
    activation: Activation | None = None,
    features: int = 24,
    seed: int = 0,
) -> Dictionary:
    """One random dictionary: plt, skip, sae, sae-pre, clt, clt-skip, clt-mid (of the residual)."""
    generator = torch.Generator().manual_seed(1000 * seed + layer)
    width = model.d_model

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(model.dtype) / width**0.5

    parts = {
        "W_enc": draw(features, width),
        "b_enc": draw(features),
        "b_dec": draw(width),
        "activation": activation or TopK(3),
    }
    if kind.startswith("sae"):
        site = Site("resid_pre" if kind == "sae-pre" else "resid_post", layer)
        return SAE(W_dec=draw(features, width), read_site=site, write_site=site, **parts)
    parts["write_site"] = Site("mlp_out", layer)
    if kind.startswith("clt"):
        return CrossLayerTranscoder(
            W_dec=draw(features, model.n_layers - layer, width),
            W_skip=draw(width, width) if kind == "clt-skip" else None,
            read_site=Site("resid_mid" if kind == "clt-mid" else "mlp_in", layer),
            **parts,
        )
    return Transcoder(
        W_dec=draw(features, width),
        W_skip=draw(width, width) if kind == "skip" else None,
        read_site=Site("mlp_in", layer),
        **parts,
    )


def tiny_transcoders(
    model: LanguageModel,
    *,
    skip: bool = False,
    activation: Activation | None = None,
    features: int = 24,
    seed: int = 0,
) -> DictionarySet:
    """One random transcoder a layer (TopK with k = 3 unless another activation is given)."""
    kind = "skip" if skip else "plt"
    return tiny_set(model, [kind] * model.n_layers, activation, features=features, seed=seed)


def tiny_set(
    model: LanguageModel,
    kinds: list[str | None],
    activation: Activation | None = None,
    *,
    features: int = 24,
    seed: int = 0,
) -> DictionarySet:
    """Random dictionaries of the given kinds, None for a layer without one."""
    return DictionarySet(
        "tiny",
        {
            layer: tiny_dictionary(
                model, kind, layer, activation=activation, features=features, seed=seed
            )
            for layer, kind in enumerate(kinds)
            if kind is not None
        },
    )


def tiny_basis(
    model: LanguageModel, basis: str, activation: Activation | None = None
) -> tuple[DictionarySet | None, str]:
    """Dictionaries, and what stands for missing ones, of one of `BASES`."""
    if basis in ("neurons", "gates", "error"):
        return None, basis
    if basis == "mixed":
        kinds = [("sae-pre", "clt", None)[layer % 3] for layer in range(model.n_layers)]
        return tiny_set(model, kinds, activation), "neurons"
    return tiny_set(model, [basis] * model.n_layers, activation), "refuse"


def relu() -> Activation:
    """Every positive pre-activation: a different number of features at each position."""
    return ReLU()
