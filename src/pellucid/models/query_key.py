"""How an attention module scores a key for a query, read from a live model.

    score(q, k) = scale * R_q norm(x_q W_Q + b_Q) . R_k norm(x_k W_K + b_K)

R rotates by position (RoPE); the norm is there in some families only (Qwen3 and Gemma 3 a head at a
time, OLMo2 the whole projection). A softcap, a mask and the softmax follow. With the scale of the
norm frozen, both sides are affine in x, which is what QK attribution rests on.

Shape legend: S positions, d model width, N heads of a projection (H queries, K keys), h head width,
r rotated width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.models.arch import ArchSpec
from pellucid.models.attention_layouts import HeadShape, RowPicker, weight_and_bias
from pellucid.models.linear import NormWeights, head_shape, read_norm
from pellucid.models.taps import submodule


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The rotation of the first r numbers of every head at each position: cosines and sines.

    Taken from the model's own rotary module, so every way of scaling the angles is the model's.
    """

    cos: Float[Tensor, "S r"]
    sin: Float[Tensor, "S r"]

    def apply(self, x: Float[Tensor, "... h"], position: int) -> Float[Tensor, "... h"]:
        """Vectors of one head at one position, rotated."""
        return self._rotated(x, self.cos[position], self.sin[position])

    def apply_all(self, x: Float[Tensor, "S N h"]) -> Float[Tensor, "S N h"]:
        """Vectors of all heads at all positions, rotated."""
        return self._rotated(x, self.cos[:, None], self.sin[:, None])

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        width = self.cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        first, second = turned.chunk(2, dim=-1)
        quarter_turn = torch.cat([-second, first], dim=-1)
        return torch.cat([turned * cos + quarter_turn * sin, rest], dim=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadProjection:
    """The query or the key projection of an attention module.

    Attributes:
        weight: `[d, N*h]`.
        bias: `[N*h]` or None.
        norm: the RMS norm that follows, None where there is none.
    """

    weight: Float[Tensor, "d Nh"]
    bias: Float[Tensor, " Nh"] | None
    norm: NormWeights | None
    n_heads: int
    d_head: int

    def project(self, x: Float[Tensor, "S d"]) -> Float[Tensor, "S N h"]:
        """The projection of attention's input, before any norm."""
        raw = x @ self.weight
        raw = raw if self.bias is None else raw + self.bias
        return raw.unflatten(-1, (self.n_heads, self.d_head))

    def factors(self, raw_SNh: Float[Tensor, "S N h"]) -> Float[Tensor, "S N h"]:
        """What the norm multiplies each number by, gain included: the part that is frozen."""
        if self.norm is None:
            return torch.ones_like(raw_SNh)
        gain = self.norm.gain
        if len(gain) == self.d_head:
            return self.norm.scale(raw_SNh) * gain
        scale_S1 = self.norm.scale(raw_SNh.flatten(1))
        return scale_S1[:, None] * gain.view(self.n_heads, self.d_head)

    def head(self, number: int) -> tuple[Float[Tensor, "d h"], Float[Tensor, " h"] | None]:
        """Weight and bias of one head."""
        columns = slice(number * self.d_head, (number + 1) * self.d_head)
        return self.weight[:, columns], None if self.bias is None else self.bias[columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryKeyWeights:
    """All that an attention module's scores are made of but the rotation.

    Attributes:
        query, key: the projections; query head i reads key head `i * K // H`.
        scale: the product of query and key is multiplied by it.
        softcap: c in `c tanh(score / c)`, None where scores are not capped.
        path: of the attention module.
    """

    query: HeadProjection
    key: HeadProjection
    scale: float
    softcap: float | None
    path: str

    def key_head(self, head: int) -> int:
        """The key head that a query head reads."""
        return head * self.key.n_heads // self.query.n_heads

    def scores(
        self,
        x: Float[Tensor, "S d"],
        rotation: Rotation | None,
        factors: tuple[Float[Tensor, "S H h"], Float[Tensor, "S K h"]] | None = None,
    ) -> Float[Tensor, "H S S"]:
        """Scores of every key for every query, before softcap and mask.

        Args:
            x: what the attention module is given, after the block's norm.
            rotation: of the positions, None for a family without rotary embeddings.
            factors: what the norms of queries and keys multiply by, where they are frozen.
        """
        sides = []
        for number, side in enumerate((self.query, self.key)):
            raw_SNh = side.project(x)
            normed_SNh = raw_SNh * (side.factors(raw_SNh) if factors is None else factors[number])
            sides.append(normed_SNh if rotation is None else rotation.apply_all(normed_SNh))
        q_SHh, k_SKh = sides
        k_SHh = k_SKh.repeat_interleave(self.query.n_heads // self.key.n_heads, dim=1)
        return self.scale * torch.einsum("qhe,khe->hqk", q_SHh, k_SHh)

    def capped(self, scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Scores as the softmax is given them."""
        return scores if self.softcap is None else self.softcap * (scores / self.softcap).tanh()


def read_query_key(root: nn.Module, spec: ArchSpec, layer: int) -> QueryKeyWeights:
    """The query and key weights of a block's attention."""
    path = spec.block_path(layer, spec.attention)
    attention, config, layout = submodule(root, path), root.config, spec.layout
    heads = head_shape(root, spec, layer)

    def side(name: str, pick: RowPicker, n_heads: int, norm: str | None) -> HeadProjection:
        weight, bias = weight_and_bias(submodule(root, f"{path}.{name}"))
        return HeadProjection(
            weight=pick(weight, heads).detach().T,
            bias=None if bias is None else pick(bias, heads).detach(),
            norm=None if norm is None else read_norm(root, spec.norm, f"{path}.{norm}"),
            n_heads=n_heads,
            d_head=heads.d_head,
        )

    return QueryKeyWeights(
        query=side(layout.query, layout.query_rows, heads.n_heads, layout.query_norm),
        key=side(layout.key, layout.key_rows, heads.n_kv_heads, layout.key_norm),
        scale=_scale(attention, heads),
        softcap=None if spec.score_softcap is None else getattr(config, spec.score_softcap),
        path=path,
    )


def _scale(attention: Any, heads: HeadShape) -> float:
    """The module's own factor (it knows of `query_pre_attn_scalar` and the like)."""
    return float(getattr(attention, "scaling", heads.d_head**-0.5))


@torch.no_grad()
def read_rotation(root: nn.Module, spec: ArchSpec, layer: int, length: int) -> Rotation | None:
    """The rotation of a block's queries and keys at positions 0 to `length` - 1."""
    if spec.rotary is None:
        return None
    module = submodule(root, spec.rotary.path)
    config: Any = root.config
    weight = next(root.parameters())
    positions = torch.arange(length, device=weight.device)[None]
    extra = [config.layer_types[layer]] if spec.rotary.by_layer_type else []
    cos, sin = module(weight.new_empty(1), positions, *extra)
    return Rotation(cos=cos[0], sin=sin[0])
