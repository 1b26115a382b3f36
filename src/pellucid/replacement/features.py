"""The active features of one layer: what each reads and what each writes.

Two bases: the features of a dictionary, and the MLP's own neurons (the baseline that every learnt
basis has to beat). Shape suffixes: n active features, R chosen ones, d model width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.dictionaries.base import Dictionary
from pellucid.replacement.freeze import FrozenLayer
from pellucid.replacement.paths import FrozenGates


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveFeatures(ABC):
    """n active features, sorted by position, then index.

    Attributes:
        positions, features: where each is, and which it is.
        activations: its activation, which is also the value that its row of inputs sums to.
    """

    positions: Int[Tensor, " n"]
    features: Int[Tensor, " n"]
    activations: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.features)

    @abstractmethod
    def read(self, chosen: Int[Tensor, " R"]) -> tuple[Float[Tensor, "R d"], Float[Tensor, " R"]]:
        """The vectors whose products with the read site, plus the constants, are the activations.

        Args:
            chosen: which of the n features.
        """

    @abstractmethod
    def direction(self, features: Int[Tensor, " R"], slot: int = 0) -> Float[Tensor, "R d"]:
        """What features (by number, active or not) would write to a slot at activation 1."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """How many features the basis has, active or not."""

    @property
    @abstractmethod
    def n_slots(self) -> int:
        """How many layers they write to: 1 but for a cross-layer transcoder."""

    def written(self, slot: int = 0) -> Float[Tensor, "n d"]:
        """What each active feature writes to a slot."""
        return self.direction(self.features, slot) * self.activations[:, None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DictionaryFeatures(ActiveFeatures):
    """Features of a dictionary."""

    dictionary: Dictionary

    def read(self, chosen: Int[Tensor, " R"]) -> tuple[Float[Tensor, "R d"], Float[Tensor, " R"]]:
        """See `ActiveFeatures`."""
        features, dtype = self.features[chosen], self.activations.dtype
        rows = self.dictionary.encoder_rows(features).to(dtype)
        zero = rows.new_zeros(1, rows.shape[1])
        offset = self.dictionary.encoder_input(zero).to(dtype).squeeze(0)
        return rows, rows @ offset + self.dictionary.b_enc[features].to(dtype)

    def direction(self, features: Int[Tensor, " R"], slot: int = 0) -> Float[Tensor, "R d"]:
        """See `ActiveFeatures`."""
        return self.dictionary.decoder_rows(features, slot).to(self.activations.dtype)

    @property
    def num_features(self) -> int:
        """See `ActiveFeatures`."""
        return self.dictionary.num_features

    @property
    def n_slots(self) -> int:
        """See `ActiveFeatures`."""
        return len(self.dictionary.write_sites)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronFeatures(ActiveFeatures):
    """Neurons of the MLP, each with its gate frozen."""

    gates: FrozenGates
    b_in: Float[Tensor, " M"] | None

    def read(self, chosen: Int[Tensor, " R"]) -> tuple[Float[Tensor, "R d"], Float[Tensor, " R"]]:
        """See `ActiveFeatures`."""
        features, positions = self.features[chosen], self.positions[chosen]
        gate = self.gates.gates[positions, features]
        constant = torch.zeros_like(gate) if self.b_in is None else gate * self.b_in[features]
        return gate[:, None] * self.gates.w_in.T[features], constant

    def direction(self, features: Int[Tensor, " R"], slot: int = 0) -> Float[Tensor, "R d"]:
        """See `ActiveFeatures`; before a post-norm's scale, which depends on the position."""
        assert slot == 0
        return self.gates.w_out[features]

    @property
    def num_features(self) -> int:
        """See `ActiveFeatures`."""
        return len(self.gates.w_out)

    @property
    def n_slots(self) -> int:
        """See `ActiveFeatures`."""
        return 1

    def written(self, slot: int = 0) -> Float[Tensor, "n d"]:
        """See `ActiveFeatures`."""
        size = self.activations[:, None] * self.gates.scale[self.positions]
        return self.direction(self.features, slot) * size


def dictionary_features(
    dictionary: Dictionary, x: Float[Tensor, "S d"], anchored: Bool[Tensor, " S"]
) -> DictionaryFeatures:
    """The features of a dictionary that are active on `x`, but for anchored positions."""
    codes = dictionary.encode(x)
    values = torch.where(anchored[:, None], torch.zeros_like(codes.values), codes.values)
    position, slot = torch.nonzero(values, as_tuple=True)
    feature = codes.indices[position, slot].long()
    order = torch.argsort(position * codes.num_features + feature)
    position, slot, feature = position[order], slot[order], feature[order]
    return DictionaryFeatures(
        positions=position,
        features=feature,
        activations=values[position, slot].to(x.dtype),
        dictionary=dictionary,
    )


def neuron_features(
    frozen: FrozenLayer, gates: FrozenGates, anchored: Bool[Tensor, " S"]
) -> NeuronFeatures:
    """The neurons whose activation is not zero, but for anchored positions."""
    values = gates.gates * frozen.block.mlp.linear_part(frozen.mlp_in)
    values = torch.where(anchored[:, None], torch.zeros_like(values), values)
    position, feature = torch.nonzero(values, as_tuple=True)
    return NeuronFeatures(
        positions=position,
        features=feature,
        activations=values[position, feature],
        gates=gates,
        b_in=frozen.block.mlp.b_in,
    )
