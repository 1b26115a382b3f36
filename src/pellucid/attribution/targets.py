"""Rows to compute: vectors read somewhere in the residual stream, each with the value it reads."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """R rows to attribute.

    Attributes:
        depth: how far up the residual stream it is read; see `LinearModel.depth`.
        position: where it is read.
        vectors: the read direction, pulled back to the residual stream.
        constant: the part of the target's value that no source writes (encoder and norm bias).
        value: the target's pre-activation, which its row must sum to.
    """

    depth: Int[Tensor, " R"]
    position: Int[Tensor, " R"]
    vectors: Float[Tensor, "R d"]
    constant: Float[Tensor, " R"]
    value: Float[Tensor, " R"]

    def __len__(self) -> int:
        return len(self.depth)

    def select(self, rows: Int[Tensor, " n"]) -> "Targets":
        """The chosen rows, in the order given."""
        return Targets(
            depth=self.depth[rows],
            position=self.position[rows],
            vectors=self.vectors[rows],
            constant=self.constant[rows],
            value=self.value[rows],
        )


def concatenate(parts: list[Targets]) -> Targets:
    """All rows of all parts, in order."""
    names = ("depth", "position", "vectors", "constant", "value")
    return Targets(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def difference(pair: Targets) -> Targets:
    """The first of two targets at one place less the second."""
    changes = {name: getattr(pair, name) for name in ("vectors", "constant", "value")}
    return Targets(
        depth=pair.depth[:1],
        position=pair.position[:1],
        **{name: values[:1] - values[1:] for name, values in changes.items()},
    )


def feature_targets(linear: LinearModel, layer: int, chosen: Int[Tensor, " R"]) -> Targets:
    """Pre-activations of active features of one layer.

    Args:
        linear: the affine map.
        layer: the block.
        chosen: which of the layer's active features, as indices into its `ActiveFeatures`.
    """
    local = linear.local.layers[layer]
    positions = local.active.positions[chosen]
    vectors, constant = local.active.read(chosen)
    depth = linear.depth(local.read_site)
    if local.cuts:
        depth -= 1
    elif local.read_site.kind == "mlp_in":
        read = linear.blocks[layer].read
        constant = constant + read.constant(vectors)
        vectors = read.pull(vectors, positions)
    return Targets(
        depth=torch.full_like(positions, depth),
        position=positions,
        vectors=vectors,
        constant=constant,
        value=local.active.activations[chosen],
    )


def unembedding_targets(
    linear: LinearModel,
    directions: Float[Tensor, "R d"],
    bias: Float[Tensor, " R"],
    position: int,
    *,
    value: Float[Tensor, " R"],
) -> Targets:
    """Products of the unembedding's input with some directions, at one position.

    Args:
        linear: the affine map.
        directions: combinations of unembedding rows.
        bias: the same combinations of the unembedding's bias.
        position: which token's prediction.
        value: the products themselves, as the model computed them.
    """
    constant = linear.final_read.constant(directions) + bias
    positions = torch.full((len(directions),), position, device=directions.device)
    vectors = linear.final_read.pull(directions, positions)
    return Targets(
        depth=torch.full_like(positions, 4 * len(linear.blocks) + 1),
        position=positions,
        vectors=vectors,
        constant=constant,
        value=value,
    )
