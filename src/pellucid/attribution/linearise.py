"""The affine map of a local replacement model, with every frozen factor folded into weights.

Per block, for a residual stream x (row vectors) and frozen pattern P_h and norm scales s:

    attn_out = sum_h diag(s_post) P_h diag(s) (x W_V,h) W_O,h + constant
    mlp_in   = s_mlp * (x C diag(gain)) + bias             C centres under a LayerNorm
    mlp_out  = features + error + constant + skip(mlp_in)

Scales fold into P, gains and centring into W_V and W_O, so a pull-back is two matrix products and
one pattern product a block. Shape suffixes: S position, H query head, G key-value head, e head
width, d model width, n active feature.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.cross_layer import CrossLayerWrites, cross_layer_writes
from pellucid.core.types import Site
from pellucid.models.linear import NormWeights
from pellucid.replacement.freeze import FrozenLayer
from pellucid.replacement.local import LocalLayer, LocalReplacement
from pellucid.replacement.paths import MlpPath, SkipMatrix

LONGEST_ATTENDED = 128
"""The longest prompt whose first attention is multiplied out token by token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """How a vector at a norm's output is read from the residual stream: the norm's transpose.

    `norm` None means the residual is read as it is.
    """

    norm: NormWeights | None
    scale: Float[Tensor, "S 1"] | None

    def pull(self, vectors: Float[Tensor, "R d"], positions: Int[Tensor, " R"]) -> Tensor:
        """Vectors at the norm's output -> vectors at the residual stream, [R, d]."""
        if self.norm is None or self.scale is None:
            return vectors
        return self.norm.centre(vectors * self.norm.gain) * self.scale[positions]

    def pull_all(self, g_RWd: Float[Tensor, "*R W d"]) -> Float[Tensor, "*R W d"]:
        """As `pull`, for gradients at each of the first W positions."""
        if self.norm is None or self.scale is None:
            return g_RWd
        return self.norm.centre(g_RWd * self.norm.gain) * self.scale[: g_RWd.shape[-2]]

    def apply(self, x_Sd: Float[Tensor, "S d"]) -> Float[Tensor, "S d"]:
        """The linear part of the norm: what `pull` is the transpose of."""
        if self.norm is None or self.scale is None:
            return x_Sd
        return self.norm.centre(x_Sd) * self.scale * self.norm.gain

    def constant(self, vectors: Float[Tensor, "R d"]) -> Float[Tensor, " R"]:
        """What the norm's bias contributes to the product with each vector."""
        if self.norm is None or self.norm.bias is None:
            return vectors.new_zeros(len(vectors))
        return vectors @ self.norm.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPath:
    """A linear path through an MLP, from the residual that the MLP reads to what it writes.

    A skip matrix is multiplied with the norm's gain and centring beforehand (`matrix`).
    """

    path: MlpPath
    read: Read
    matrix: Float[Tensor, "d d"] | None
    scale: Float[Tensor, "S 1"] | None
    dtype: torch.dtype

    def pull(self, g_RWd: Float[Tensor, "*R W d"]) -> Float[Tensor, "*R W d"]:
        """Gradients at what the MLP writes -> gradients at the residual it reads.

        Gates have the precision of the model whatever that of the gradients.
        """
        if self.matrix is not None and self.scale is not None:
            pulled = g_RWd @ self.matrix.to(g_RWd.dtype)
            return pulled * self.scale[: g_RWd.shape[-2]].to(g_RWd.dtype)
        return self.read.pull_all(self.path.pull(g_RWd.to(self.dtype))).to(g_RWd.dtype)

    def push(self, x_Sd: Float[Tensor, "S d"]) -> Float[Tensor, "S d"]:
        """What a residual sends through the path, the constant left out."""
        return self.path.apply(self.read.apply(x_Sd))

    def constant(self) -> Float[Tensor, "S d"] | float:
        """What the norm's bias sends through the path."""
        norm, scale = self.read.norm, self.read.scale
        if norm is None or scale is None or norm.bias is None:
            return 0.0
        return self.path.apply(norm.bias.expand(len(scale), -1))


Written = tuple[Float[Tensor, "n2 d"], ...]
"""At each position the vectors written there by the features, the error and a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearBlock:
    """One block of the affine map.

    Attributes:
        pattern: scale-folded attention pattern, queries by keys.
        w_v, w_o: value and output weights with norm gains folded in.
        group: query heads that share one key-value head.
        read: how `mlp_in` is read from the residual.
        path: the linear path through the MLP, if there is one.
        written: what the MLP writes; None where nothing but a constant.
        mlp_constant: what it writes when `written` is None.
        crossed: what the features of lower layers write to its output, if any do.
        attn_constant: what attention adds when the residual it reads is zero.
        parallel: attention and MLP read the same residual.
    """

    pattern: Float[Tensor, "H S S"]
    w_v: Float[Tensor, "d GE"]
    w_o: Float[Tensor, "HE d"]
    group: int
    read: Read
    path: ReadPath | None
    written: Written | None
    mlp_constant: Float[Tensor, "S d"] | None
    crossed: CrossLayerWrites | None
    attn_constant: Float[Tensor, "S d"]
    parallel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """The affine map of one prompt's local replacement model.

    Attributes:
        local: what was linearised.
        blocks: the map of each block.
        cuts: by depth (see `depth`), the layer whose SAE explains the residual there, and what it
            writes.
        tokens: the tokens' embeddings.
        embed_constant: what else the embedding adds (position embeddings).
        attended: what the first attention writes at each position: the image of every token up to
            there, then that of the constant. None for a prompt so long that they would fill memory.
        final_read: how the unembedding's input is read from the last residual.
    """

    local: LocalReplacement
    blocks: tuple[LinearBlock, ...]
    cuts: Mapping[int, tuple[int, Written]]
    tokens: Float[Tensor, "S d"]
    embed_constant: Float[Tensor, "S d"]
    attended: tuple[Float[Tensor, "n1 d"], ...] | None
    final_read: Read

    def to(self, dtype: torch.dtype) -> "LinearModel":
        """The same map with gradients, and the weights they are pulled through, in another dtype.

        What is written keeps its dtype: products with it are taken in that.
        """
        blocks = tuple(
            replace(
                block,
                pattern=block.pattern.to(dtype),
                w_v=block.w_v.to(dtype),
                w_o=block.w_o.to(dtype),
            )
            for block in self.blocks
        )
        return replace(self, blocks=blocks)

    def depth(self, site: Site) -> int:
        """How far up the residual stream a vector at `site` is read, from 0 to 4 L + 1.

        A block takes four steps: 4 l + 1 reads `resid_pre@l`, and 4 l + 3 `resid_mid@l` (where a
        sequential block's `mlp_in` is read); one below each stand the features of an SAE at that
        very place, which read what everything else there reads through them.
        """
        parallel = self.blocks[site.layer].parallel
        match site.kind:
            case "resid_pre":
                return 4 * site.layer + 1
            case "resid_mid":
                return 4 * site.layer + 3
            case "mlp_in":
                return 4 * site.layer + (1 if parallel else 3)
            case "resid_post":
                return 4 * site.layer + 5
            case _:
                raise AssertionError(f"{site} is not a place that a target reads")


@torch.no_grad()
def linearise(
    local: LocalReplacement, can_keep: Callable[[int], bool] = lambda n_bytes: True
) -> LinearModel:
    """Fold a local replacement model into the matrices that the sweep multiplies by.

    Args:
        local: what to linearise.
        can_keep: whether so many bytes may be spent on what could also be computed again.
    """
    run = local.run
    tokens = run.model.token_embedding(run.ids)
    blocks = tuple(
        _linear_block(frozen, layer, cross_layer_writes(local, number, can_keep))
        for number, (frozen, layer) in enumerate(zip(run.layers, local.layers, strict=True))
    )
    embed_constant = run.embed - tokens
    linear = LinearModel(
        local=local,
        blocks=blocks,
        cuts={},
        tokens=tokens,
        embed_constant=embed_constant,
        attended=None,
        final_read=Read(norm=run.final_norm, scale=run.final_scale),
    )
    cuts = {
        linear.depth(layer.write_site): (number, _written(layer, layer.constant))
        for number, layer in enumerate(local.layers)
        if layer.cuts
    }
    fits = len(tokens) <= LONGEST_ATTENDED and can_keep(2 * tokens.nbytes * len(tokens))
    attended = _attended(blocks[0], tokens, embed_constant) if fits and 1 not in cuts else None
    return replace(linear, cuts=cuts, attended=attended)


def _linear_block(
    frozen: FrozenLayer, layer: LocalLayer, crossed: CrossLayerWrites | None
) -> LinearBlock:
    block, attention = frozen.block, frozen.block.attention
    pattern, w_v, w_o = frozen.pattern, attention.w_v, attention.w_o
    if block.attn_norm is not None and frozen.attn_scale is not None:
        w_v = block.attn_norm.centre((block.attn_norm.gain[:, None] * w_v).T).T
        pattern = pattern * frozen.attn_scale.squeeze(-1)[None, None, :]
    if block.attn_post_norm is not None and frozen.attn_post_scale is not None:
        w_o = block.attn_post_norm.centre(w_o) * block.attn_post_norm.gain
        pattern = pattern * frozen.attn_post_scale.squeeze(-1)[None, :, None]
    read = Read(norm=block.mlp_norm, scale=frozen.mlp_scale)
    path = _read_path(read, layer)
    attn_constant = _attention_constant(frozen)
    constant = layer.constant if layer.mlp_constant is None else layer.mlp_constant
    if path is not None:
        constant = constant + path.constant()
    if layer.write_site.kind != "resid_mid":  # there, nothing below the MLP reaches above it
        constant = constant + attn_constant
        if path is not None and not block.parallel:
            constant = constant + path.push(attn_constant)
    return LinearBlock(
        pattern=pattern.contiguous(),
        w_v=w_v.contiguous(),
        w_o=w_o.contiguous(),
        group=attention.n_heads // attention.n_kv_heads,
        read=read,
        path=path,
        written=None if layer.cuts else _written(layer, constant),
        mlp_constant=constant if layer.cuts else None,
        crossed=crossed,
        attn_constant=attn_constant,
        parallel=block.parallel,
    )


def _attended(
    block: LinearBlock, tokens: Float[Tensor, "S d"], embed_constant: Float[Tensor, "S d"]
) -> tuple[Tensor, ...]:
    """Images of tokens and constant under the first attention."""
    heads = len(block.pattern)
    values_2SHe = (torch.stack([tokens, embed_constant]) @ block.w_v).unflatten(
        2, (heads // block.group, -1)
    )
    tokens_SHe, constant_SHe = values_2SHe.repeat_interleave(block.group, dim=2)
    images = []
    for position, pattern_HS in enumerate(block.pattern.unbind(1)):
        pattern_SH1 = pattern_HS[:, : position + 1].T.unsqueeze(2)
        seen = pattern_SH1 * tokens_SHe[: position + 1]
        constant = (pattern_SH1 * constant_SHe[: position + 1]).sum(0, keepdim=True)
        images.append(torch.cat([seen, constant]).flatten(1) @ block.w_o)
    return tuple(images)


def _written(layer: LocalLayer, constant: Float[Tensor, "S d"]) -> Written:
    counts = torch.bincount(layer.active.positions, minlength=len(layer.error)).tolist()
    return tuple(
        torch.cat([features, error[None], bias[None]])
        for features, error, bias in zip(
            layer.active.written().split(counts), layer.error, constant, strict=True
        )
    )


def _attention_constant(frozen: FrozenLayer) -> Float[Tensor, "S d"]:
    """What attention adds when the residual it reads is zero."""
    block = frozen.block
    zero = torch.zeros_like(frozen.mlp_out)
    read = zero
    if block.attn_norm is not None and frozen.attn_scale is not None:
        read = block.attn_norm.apply(zero, frozen.attn_scale)
    out = block.attention.apply(read[None], frozen.pattern[None])[0]
    if block.attn_post_norm is not None and frozen.attn_post_scale is not None:
        out = block.attn_post_norm.apply(out, frozen.attn_post_scale)
    return out


def _read_path(read: Read, layer: LocalLayer) -> ReadPath | None:
    path = layer.path
    if path is None:
        return None
    matrix, scale = None, None
    if isinstance(path, SkipMatrix):
        matrix, scale = path.matrix, path.kept
        if read.norm is not None and read.scale is not None:
            matrix, scale = read.norm.centre(matrix * read.norm.gain), scale * read.scale
    return ReadPath(path=path, read=read, matrix=matrix, scale=scale, dtype=layer.error.dtype)
