"""JumpReLU in the place of TopK, for formats that have no TopK: never exact.

One threshold serves all features: the one under which, over the inputs given, as many features
fire on average as TopK keeps (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders", section 3).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.activations import Activation, JumpReLU, KLargest, ReLU
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.formats.format import Export
from pellucid.dictionaries.formats.parts import describe

_TOKENS, _AT_ONCE = 2048, 128


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
    if not isinstance(activation, KLargest):
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
    """The threshold above which k features a token lie, on average; never negative.

    Args:
        dictionary: gives pre-activations.
        inputs: real inputs of it; the first 2,048 are used. Of each, 16 k features are looked at.
        k: features a token.
    """
    inputs = inputs[:_TOKENS].to(dictionary.W_enc.device)
    looked_at = min(dictionary.num_features, 16 * k)
    largest = torch.cat(
        [
            dictionary.pre_activations(part).topk(looked_at, dim=1).values.flatten()
            for part in inputs.split(_AT_ONCE)
        ]
    )
    kept = k * len(inputs)
    if kept >= len(largest):
        return 0.0
    return max(0.0, float(largest.topk(kept + 1).values[-1]))
