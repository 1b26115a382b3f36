"""Running a model with its MLPs computed by other functions."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.types import Site
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction

MlpFunction = Callable[[Tensor], Tensor]


def anchor_mask(
    model: LanguageModel, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None
) -> Bool[Tensor, "B S"]:
    """Where the first real token of a row is a special one (BOS): positions never replaced.

    That position attends to itself alone, so its computation is the same constant in every
    prompt: it carries no information, only the attention sink's outlying norms, and dictionaries
    are not trained on it.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    first = real & (real.cumsum(dim=1) == 1)
    return first & model.special_token_mask(ids)


@torch.no_grad()
def replaced_logits(
    model: LanguageModel,
    functions: Mapping[int, MlpFunction],
    ids: Int[Tensor, "B S"],
    mask: Bool[Tensor, "B S"] | None = None,
    read_sites: Mapping[int, Site] | None = None,
) -> Float[Tensor, "B S V"]:
    """`spliced_logits` without gradients."""
    return spliced_logits(model, functions, ids, mask, read_sites)


def spliced_logits(
    model: LanguageModel,
    functions: Mapping[int, MlpFunction],
    ids: Int[Tensor, "B S"],
    mask: Bool[Tensor, "B S"] | None = None,
    read_sites: Mapping[int, Site] | None = None,
) -> Float[Tensor, "B S V"]:
    """Logits of the model with the MLPs of some layers replaced.

    Args:
        model: the language model.
        functions: layer -> function from `mlp_in` [N, d] to what replaces `mlp_out` [N, d]; they
            are called in the order of the layers.
        ids: token ids.
        mask: True at real tokens; None when nothing is padded.
        read_sites: layer -> what its function takes instead of `mlp_in`.
    """
    read_sites = read_sites or {}
    keep_BS1 = anchor_mask(model, ids, mask)[..., None]
    inputs: dict[int, Tensor] = {}
    taps: list[tuple[Site, TapFunction]] = []
    for layer, function in functions.items():

        def remember(value: Tensor, _call: TapCall, layer: int = layer) -> None:
            inputs[layer] = value

        def replace(
            value: Tensor, _call: TapCall, layer: int = layer, function: MlpFunction = function
        ) -> Tensor:
            x = inputs.pop(layer)
            replaced = function(x.reshape(-1, x.shape[-1])).reshape(value.shape)
            # Nothing replaced reaches a kept position, so no gradient needs to go back through it.
            return torch.where(keep_BS1, value.detach(), replaced.to(value.dtype))

        read_site = read_sites.get(layer, Site("mlp_in", layer))
        taps += [(read_site, remember), (Site("mlp_out", layer), replace)]
    with model.tapped(taps):
        return model.logits(ids, mask)
