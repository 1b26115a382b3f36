"""The local replacement model of one prompt: frozen run, active features and errors.

Each MLP's output is written exactly as features + error + constants; attention patterns and norm
scales are frozen (Anthropic, "Circuit Tracing", 2025).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.replacement.freeze import FrozenRun
from pellucid.replacement.splice import anchor_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLayer:
    """One layer's MLP output, taken apart; n active features, sorted by position then index.

    Attributes:
        positions, features: where each active feature is, and which it is.
        activations: its activation, which is also its pre-activation (it is positive).
        error: what the dictionary misses; zero at anchored positions.
        constant: decoder bias, or at anchored positions the whole MLP output.
        anchored: positions whose MLP output is kept as a constant (BOS).
    """

    positions: Int[Tensor, " n"]
    features: Int[Tensor, " n"]
    activations: Float[Tensor, " n"]
    error: Float[Tensor, "S d"]
    constant: Float[Tensor, "S d"]
    anchored: Bool[Tensor, " S"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReplacement:
    """A frozen run with every layer's MLP output decomposed by its dictionary."""

    run: FrozenRun
    dictionaries: DictionarySet
    layers: tuple[LocalLayer, ...]

    @property
    def n_features(self) -> int:
        """How many features are active, over all layers and positions."""
        return sum(len(layer.features) for layer in self.layers)


@torch.no_grad()
def decompose(run: FrozenRun, dictionaries: DictionarySet) -> LocalReplacement:
    """Write every MLP output of a frozen run as features, error and constants.

    Raises:
        DictionaryError: a layer has no dictionary, or one that does not map `mlp_in` to `mlp_out`.
    """
    anchored = anchor_mask(run.model, run.ids[None])[0]
    layers = []
    for index, frozen in enumerate(run.layers):
        dictionary = dictionaries[index]
        sites = (str(dictionary.read_site), str(dictionary.write_site))
        if sites != (f"mlp_in@{index}", f"mlp_out@{index}"):
            raise DictionaryError(
                f"the dictionary of layer {index} maps {sites[0]} to {sites[1]}; tracing needs "
                "transcoders (mlp_in to mlp_out) at every layer"
            )
        codes = dictionary.encode(frozen.mlp_in)
        values = torch.where(anchored[:, None], torch.zeros_like(codes.values), codes.values)
        skipped = dictionary.skip(frozen.mlp_in)
        error = frozen.mlp_out - dictionary.decode(codes)
        error = error if skipped is None else error - skipped
        bias = dictionary.b_dec.to(error.dtype).expand_as(error)
        position, slot = torch.nonzero(values, as_tuple=True)
        feature = codes.indices[position, slot].long()
        order = torch.argsort(position * codes.num_features + feature)
        position, slot, feature = position[order], slot[order], feature[order]
        layers.append(
            LocalLayer(
                positions=position,
                features=feature,
                activations=values[position, slot],
                error=torch.where(anchored[:, None], torch.zeros_like(error), error),
                constant=torch.where(anchored[:, None], frozen.mlp_out, bias),
                anchored=anchored,
            )
        )
    return LocalReplacement(run=run, dictionaries=dictionaries, layers=tuple(layers))
