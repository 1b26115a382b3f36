"""The neurons of a block's MLP, read from a live model through its description.

A neuron's activation is `gate * (x @ w_in[:, i] + b_in[i])`, where `gate` is what the nonlinearity
contributes: act(x @ w_gate) in a gated MLP, act(pre) / pre in a plain one. With the gate frozen at
its value on one prompt, the whole MLP is linear in its input.
Shape legend: N rows, d model width, M neurons.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.models.attention_layouts import weight_and_bias
from pellucid.models.taps import submodule

NEGLIGIBLE = 1e-6
"""Below this |pre-activation| the ratio act(pre) / pre is taken as the slope of act at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpLayout:
    """Where an MLP module keeps its projections and its nonlinearity (paths inside it).

    Attributes:
        up: the projection to the neurons.
        gate: the projection the nonlinearity acts on, None where that is `up`; equal to `up` where
            one projection holds the gates first and then the neurons.
        down: the projection back.
        act: the nonlinearity.
    """

    up: str
    gate: str | None
    down: str
    act: str


GATED = MlpLayout(up="up_proj", gate="gate_proj", down="down_proj", act="act_fn")


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpWeights:
    """A block's MLP (weights are the model's own tensors)."""

    w_in: Float[Tensor, "d M"]
    b_in: Float[Tensor, " M"] | None
    w_gate: Float[Tensor, "d M"] | None
    b_gate: Float[Tensor, " M"] | None
    w_out: Float[Tensor, "M d"]
    b_out: Float[Tensor, " d"] | None
    act: Callable[[Tensor], Tensor]

    def gates(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N M"]:
        """What the nonlinearity multiplies each neuron's linear part with."""
        if self.w_gate is not None:
            return self.act(_affine(x, self.w_gate, self.b_gate))
        pre = _affine(x, self.w_in, self.b_in)
        small = pre.abs() < NEGLIGIBLE
        step = torch.full_like(pre, NEGLIGIBLE)
        slope = (self.act(step) - self.act(-step)) / (2 * NEGLIGIBLE)
        return torch.where(small, slope, self.act(pre) / pre)

    def linear_part(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N M"]:
        """What the gates multiply."""
        return _affine(x, self.w_in, self.b_in)


def read_mlp(root: nn.Module, layout: MlpLayout, path: str) -> MlpWeights:
    """The MLP module at `path`."""
    up, b_up = weight_and_bias(submodule(root, f"{path}.{layout.up}"))
    down, b_down = weight_and_bias(submodule(root, f"{path}.{layout.down}"))
    gate, b_gate = None, None
    if layout.gate == layout.up:
        gate, up = up.chunk(2)
        b_gate, b_up = (None, None) if b_up is None else b_up.chunk(2)
    elif layout.gate is not None:
        gate, b_gate = weight_and_bias(submodule(root, f"{path}.{layout.gate}"))
    act = submodule(root, f"{path}.{layout.act}")
    return MlpWeights(
        w_in=up.detach().T,
        b_in=_detached(b_up),
        w_gate=None if gate is None else gate.detach().T,
        b_gate=_detached(b_gate),
        w_out=down.detach().T,
        b_out=_detached(b_down),
        act=act,
    )


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else x @ weight + bias


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
