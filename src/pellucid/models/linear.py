"""The linear pieces that attribution needs, read from a live model through its description.

With attention patterns and norm scales frozen, a decoder's residual stream is a linear function of
what is written to it; these are the matrices and gains of that function. Weights are the model's
own tensors (not copies) in its dtype, except norm gains and biases, which are at least float32.

Shape legend: B batch, S positions, T source positions, d model width, H heads, K key-value heads,
h width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.models.arch import ArchSpec, NormForm
from pellucid.models.attention_layouts import HeadShape, weight_and_bias
from pellucid.models.mlp import MlpWeights, read_mlp
from pellucid.models.taps import submodule


@dataclass(frozen=True, slots=True, kw_only=True)
class NormWeights:
    """A norm as `((x - mean) * scale) * gain + bias`; linear in x once `scale` is frozen.

    Attributes:
        gain: `[d]`, any offset of the family included.
        bias: `[d]` or None.
        centred: whether the mean is subtracted (LayerNorm).
        eps: added to the mean square.
        path: of the module.
    """

    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"] | None
    centred: bool
    eps: float
    path: str

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """The factor that is frozen: one over the root mean square (of x minus its mean)."""
        x = self.centre(x.to(_at_least_float32(x.dtype)))
        return torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)

    def apply(
        self, x: Float[Tensor, "... d"], scale: Float[Tensor, "... 1"]
    ) -> Float[Tensor, "... d"]:
        """The norm's output for `x` under a given scale."""
        y = self.centre(x) * scale * self.gain
        return y if self.bias is None else y + self.bias

    def centre(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """x less its mean where the norm subtracts it (a symmetric linear map), else x."""
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWeights:
    """What attention does with its input once the pattern is frozen.

    `v = x @ w_v + b_v`; head `i` mixes the values of key-value head `i * K // H` over positions;
    the heads side by side, times `w_o`, plus `b_o`, are the module's output.

    Attributes:
        w_v: `[d, K*h]`.
        b_v: `[K*h]` or None.
        w_o: `[H*h, d]`.
        b_o: `[d]` or None.
        path: of the attention module, whose second output is the pattern.
    """

    w_v: Float[Tensor, "d KvWidth"]
    b_v: Float[Tensor, " KvWidth"] | None
    w_o: Float[Tensor, "Width d"]
    b_o: Float[Tensor, " d"] | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    path: str

    def apply(
        self, x: Float[Tensor, "B T d"], pattern: Float[Tensor, "B H S T"]
    ) -> Float[Tensor, "B S d"]:
        """The attention module's output for input `x` under a given pattern."""
        v_BTKh = (x @ self.w_v).unflatten(-1, (self.n_kv_heads, self.d_head))
        if self.b_v is not None:
            v_BTKh = v_BTKh + self.b_v.view(self.n_kv_heads, self.d_head)
        v_BTHh = v_BTKh.repeat_interleave(self.n_heads // self.n_kv_heads, dim=2)
        z_BSHh = torch.einsum("bhst,bthc->bshc", pattern, v_BTHh)
        out = z_BSHh.flatten(2) @ self.w_o
        return out if self.b_o is None else out + self.b_o


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLinear:
    """One block: its attention, MLP and norms, None where the family has none there.

    Attributes:
        attn_norm, mlp_norm: before attention and before the MLP.
        attn_post_norm, mlp_post_norm: on their outputs, before these are added to the residual.
        parallel: attention and MLP both read `resid_pre`.
    """

    attention: AttentionWeights
    mlp: MlpWeights
    attn_norm: NormWeights | None
    attn_post_norm: NormWeights | None
    mlp_norm: NormWeights | None
    mlp_post_norm: NormWeights | None
    parallel: bool


def read_norm(root: nn.Module, form: NormForm, path: str) -> NormWeights:
    """The norm module at `path`."""
    module = submodule(root, path)
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    dtype = _at_least_float32(weight.dtype)
    return NormWeights(
        gain=weight.detach().to(dtype) + form.gain_offset,
        bias=None if bias is None else bias.detach().to(dtype),
        centred=form.centred,
        eps=float(getattr(module, form.eps)),
        path=path,
    )


def head_shape(root: nn.Module, spec: ArchSpec, layer: int) -> HeadShape:
    """Numbers of heads of a block's attention, and their width."""
    config: Any = root.config
    n_heads = config.num_attention_heads
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    path = spec.block_path(layer, spec.attention)
    w_o, _ = weight_and_bias(submodule(root, f"{path}.{spec.layout.output}"))
    return HeadShape(n_heads, n_kv_heads, w_o.shape[1] // n_heads)


def read_attention(root: nn.Module, spec: ArchSpec, layer: int) -> AttentionWeights:
    """The value and output projections of a block's attention."""
    path = spec.block_path(layer, spec.attention)
    w_o, b_o = weight_and_bias(submodule(root, f"{path}.{spec.layout.output}"))
    heads = head_shape(root, spec, layer)
    qkv, b_qkv = weight_and_bias(submodule(root, f"{path}.{spec.layout.value}"))
    pick = spec.layout.value_rows
    return AttentionWeights(
        w_v=pick(qkv, heads).detach().T,
        b_v=None if b_qkv is None else pick(b_qkv, heads).detach(),
        w_o=w_o.detach().T,
        b_o=None if b_o is None else b_o.detach(),
        n_heads=heads.n_heads,
        n_kv_heads=heads.n_kv_heads,
        d_head=heads.d_head,
        path=path,
    )


def read_block(root: nn.Module, spec: ArchSpec, layer: int) -> BlockLinear:
    """The linear pieces of a block."""

    def norm(inside: str | None) -> NormWeights | None:
        if inside is None:
            return None
        return read_norm(root, spec.norm, spec.block_path(layer, inside))

    return BlockLinear(
        attention=read_attention(root, spec, layer),
        mlp=read_mlp(root, spec.mlp_layout, spec.block_path(layer, spec.mlp)),
        attn_norm=norm(spec.attn_norm),
        attn_post_norm=norm(spec.attn_post_norm),
        mlp_norm=norm(spec.mlp_norm),
        mlp_post_norm=norm(spec.mlp_post_norm),
        parallel=spec.parallel,
    )


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
