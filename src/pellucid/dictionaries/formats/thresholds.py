"""JumpReLU in the place of TopK, for formats that have no TopK: never exact.

One threshold serves all features: the one under which, over the inputs given, as many features
fire on average as TopK keeps (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders", section 3).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, SignedTopK, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.formats.format import Export
from pellucid.dictionaries.formats.parts import describe

_TOKENS = 2048


def as_jumprelu(dictionary: Dictionary, layer: int, export: Export, format_name: str) -> JumpReLU:
    """The JumpReLU that a dictionary's activation is, or the nearest to it.

    ReLU is JumpReLU with thresholds of 0. TopK is lost: needs `export.allow_loss` and inputs.

    Raises:
        DictionaryError: it may not be lost, there are no inputs to set a threshold on, or the
            activation is of another kind.
    """
    activation = dictionary.activation
    if isinstance(activation, JumpReLU):
        return activation
    if isinstance(activation, ReLU):
        return JumpReLU(torch.zeros_like(dictionary.b_enc))
    if not isinstance(activation, TopK | SignedTopK):
        raise not_held(activation, layer, format_name)
    export.lose(
        f"{format_name} has no {describe(activation)}, and layer {layer} keeps the "
        f"{activation.k} largest features of a token",
        "JumpReLU with one threshold, under which as many features fire on average over text, "
        "though not at every token",
    )
    if layer not in export.inputs:
        raise DictionaryError(
            f"a threshold in the place of layer {layer}'s {describe(activation)} is set on text; "
            "give the model and a text (--model and --data)"
        )
    value = threshold_keeping(dictionary, export.inputs[layer], activation.k)
    return JumpReLU(torch.full_like(dictionary.b_enc, value))


def not_held(activation: Activation, layer: int, format_name: str) -> DictionaryError:
    """The refusal of an activation that a format does not have."""
    return DictionaryError(
        f"{format_name} has no {describe(activation)}, the activation of layer {layer}"
    )


def threshold_keeping(dictionary: Dictionary, inputs: Float[Tensor, "N d_in"], k: int) -> float:
    """The least threshold above which at most k features a token lie, on average; never negative.

    Args:
        dictionary: gives pre-activations.
        inputs: real inputs of it; the first 2,048 are used.
        k: features a token.
    """
    pre = dictionary.pre_activations(inputs[:_TOKENS]).clamp_min(0)
    kept = min(k * len(pre), pre.numel() - 1)
    # Every token's k+1 largest hold enough, but for tokens that have far more than others.
    return float(pre.flatten().kthvalue(pre.numel() - kept).values)
