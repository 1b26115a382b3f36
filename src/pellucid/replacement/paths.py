"""Linear paths through an MLP, from `mlp_in` to `mlp_out`, beside or instead of features.

Shape suffixes: S positions, d model width, M neurons, B any leading dimensions.
"""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.replacement.freeze import FrozenLayer


class MlpPath(Protocol):
    """How `mlp_out` answers `mlp_in` linearly; no constant, and nothing at anchored positions."""

    def apply(self, x_BSd: Float[Tensor, "*B S d"]) -> Float[Tensor, "*B S d"]:
        """What the path writes for an input (or for a change of it)."""

    def pull(self, g_BWd: Float[Tensor, "*B W d"]) -> Float[Tensor, "*B W d"]:
        """Gradients at `mlp_out` of the first W positions -> gradients at `mlp_in`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipMatrix:
    """A transcoder's skip connection, x @ matrix.T."""

    matrix: Float[Tensor, "d d"]
    kept: Float[Tensor, "S 1"]

    def apply(self, x_BSd: Float[Tensor, "*B S d"]) -> Float[Tensor, "*B S d"]:
        """See `MlpPath`."""
        return (x_BSd @ self.matrix.T) * self.kept

    def pull(self, g_BWd: Float[Tensor, "*B W d"]) -> Float[Tensor, "*B W d"]:
        """See `MlpPath`."""
        return (g_BWd @ self.matrix) * self.kept[: g_BWd.shape[-2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenGates:
    """The MLP itself with its gates held at their values on one prompt.

    `gates` hold, beside the nonlinearity, nothing else; `w_out` and `scale` hold the post-norm of
    a family that has one, and `scale` is zero at anchored positions.
    """

    w_in: Float[Tensor, "d M"]
    w_out: Float[Tensor, "M d"]
    gates: Float[Tensor, "S M"]
    scale: Float[Tensor, "S 1"]

    def apply(self, x_BSd: Float[Tensor, "*B S d"]) -> Float[Tensor, "*B S d"]:
        """See `MlpPath`."""
        return (((x_BSd @ self.w_in) * self.gates) @ self.w_out) * self.scale

    def input_bias(self, b_in: Float[Tensor, " M"] | None) -> Float[Tensor, "S d"]:
        """What the neurons' bias writes through the gates."""
        if b_in is None:
            return self.scale * self.w_out.new_zeros(self.w_out.shape[1])
        return ((b_in * self.gates) @ self.w_out) * self.scale

    def pull(self, g_BWd: Float[Tensor, "*B W d"]) -> Float[Tensor, "*B W d"]:
        """See `MlpPath`."""
        window = g_BWd.shape[-2]
        at_neurons = (g_BWd * self.scale[:window]) @ self.w_out.T
        return (at_neurons * self.gates[:window]) @ self.w_in.T


def frozen_gates(frozen: FrozenLayer, anchored: Bool[Tensor, " S"]) -> FrozenGates:
    """The MLP of a frozen layer as a linear path."""
    mlp, norm = frozen.block.mlp, frozen.block.mlp_post_norm
    scale = (~anchored)[:, None].to(frozen.mlp_out.dtype)
    w_out = mlp.w_out
    if norm is not None and frozen.mlp_post_scale is not None:
        w_out = norm.centre(w_out) * norm.gain
        scale = scale * frozen.mlp_post_scale
    return FrozenGates(w_in=mlp.w_in, w_out=w_out, gates=mlp.gates(frozen.mlp_in), scale=scale)


def output_bias(frozen: FrozenLayer, gates: FrozenGates) -> Float[Tensor, "S d"]:
    """What the MLP writes whatever its neurons do: its output bias and its post-norm's."""
    mlp, norm = frozen.block.mlp, frozen.block.mlp_post_norm
    bias = frozen.mlp_out.new_zeros(frozen.mlp_out.shape)
    if mlp.b_out is not None:
        b_out = mlp.b_out if norm is None else norm.centre(mlp.b_out) * norm.gain
        bias = bias + b_out * gates.scale
    if norm is not None and norm.bias is not None:
        bias = bias + norm.bias
    return bias
