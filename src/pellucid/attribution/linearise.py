"""The affine map of a local replacement model, with every frozen factor folded into weights.

Per block, for a residual stream x (row vectors) and frozen pattern P_h and norm scales s:

    attn_out = sum_h diag(s_post) P_h diag(s) (x W_V,h) W_O,h + constant
    mlp_in   = s_mlp * (x C diag(gain)) + bias             C centres under a LayerNorm
    mlp_out  = features + error + constant + skip(mlp_in)

Scales fold into P, gains and centring into W_V and W_O, so a pull-back is two matrix products and
one pattern product a block. Shape suffixes: S position, H query head, G key-value head, e head
width, d model width, n active feature.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.models.linear import NormWeights
from pellucid.replacement.freeze import FrozenLayer
from pellucid.replacement.local import LocalLayer, LocalReplacement

LONGEST_ATTENDED = 128


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
        return _centred(self.norm, vectors * self.norm.gain) * self.scale[positions]

    def constant(self, vectors: Float[Tensor, "R d"]) -> Float[Tensor, " R"]:
        """What the norm's bias contributes to the product with each vector."""
        if self.norm is None or self.norm.bias is None:
            return vectors.new_zeros(len(vectors))
        return vectors @ self.norm.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipPath:
    """The skip connection of a transcoder, from the residual its MLP reads to what it writes.

    `matrix` is W_skip times the transposed norm but for its scale, `scale` that scale, zero where
    the MLP output is anchored, and `constant` what the norm's bias sends through the path.
    """

    matrix: Float[Tensor, "d d"]
    scale: Float[Tensor, "S 1"]
    constant: Float[Tensor, "S d"]

    def pull(self, g_RWd: Float[Tensor, "*R W d"]) -> Float[Tensor, "*R W d"]:
        """Gradients at what the MLP writes -> gradients at the residual it reads."""
        return (g_RWd @ self.matrix) * self.scale[: g_RWd.shape[-2]]

    def push(self, x_Sd: Float[Tensor, "S d"]) -> Float[Tensor, "S d"]:
        """What a residual sends through the path, the constant left out."""
        return (self.scale * x_Sd) @ self.matrix.T


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearBlock:
    """One block of the affine map.

    Attributes:
        pattern: scale-folded attention pattern, queries by keys.
        w_v, w_o: value and output weights with norm gains folded in.
        group: query heads that share one key-value head.
        read: how `mlp_in` is read from the residual.
        skip: the transcoder's skip connection, if it has one.
        written: at each position the vectors written by its features, then its error, then a
            constant whose product with the gradient at the block's output is all that the block's
            own biases contribute.
        attn_constant: what attention adds when the residual it reads is zero.
        parallel: attention and MLP read the same residual.
    """

    pattern: Float[Tensor, "H S S"]
    w_v: Float[Tensor, "d GE"]
    w_o: Float[Tensor, "HE d"]
    group: int
    read: Read
    skip: SkipPath | None
    written: tuple[Float[Tensor, "n2 d"], ...]
    attn_constant: Float[Tensor, "S d"]
    parallel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """The affine map of one prompt's local replacement model.

    Attributes:
        local: what was linearised.
        blocks: the map of each block.
        tokens: the tokens' embeddings.
        embed_constant: what else the embedding adds (position embeddings).
        attended: what the first attention writes at each position: the image of every token up to
            there, then that of the constant. None for a prompt so long that they would fill memory.
        final_read: how the unembedding's input is read from the last residual.
    """

    local: LocalReplacement
    blocks: tuple[LinearBlock, ...]
    tokens: Float[Tensor, "S d"]
    embed_constant: Float[Tensor, "S d"]
    attended: tuple[Float[Tensor, "n1 d"], ...] | None
    final_read: Read


def _centred(norm: NormWeights, vectors: Tensor) -> Tensor:
    """Vectors times the norm's centring matrix (symmetric), along the last dimension."""
    return vectors - vectors.mean(dim=-1, keepdim=True) if norm.centred else vectors


@torch.no_grad()
def linearise(local: LocalReplacement) -> LinearModel:
    """Fold a local replacement model into the matrices that the sweep multiplies by."""
    run = local.run
    tokens = run.model.token_embedding(run.ids)
    blocks = tuple(
        _linear_block(frozen, layer, local, index)
        for index, (frozen, layer) in enumerate(zip(run.layers, local.layers, strict=True))
    )
    embed_constant = run.embed - tokens
    return LinearModel(
        local=local,
        blocks=blocks,
        tokens=tokens,
        embed_constant=embed_constant,
        attended=_attended(blocks[0], tokens, embed_constant),
        final_read=Read(norm=run.final_norm, scale=run.final_scale),
    )


def _linear_block(
    frozen: FrozenLayer, layer: LocalLayer, local: LocalReplacement, index: int
) -> LinearBlock:
    block, attention = frozen.block, frozen.block.attention
    pattern, w_v, w_o = frozen.pattern, attention.w_v, attention.w_o
    if block.attn_norm is not None and frozen.attn_scale is not None:
        w_v = _centred(block.attn_norm, (block.attn_norm.gain[:, None] * w_v).T).T
        pattern = pattern * frozen.attn_scale.squeeze(-1)[None, None, :]
    if block.attn_post_norm is not None and frozen.attn_post_scale is not None:
        w_o = _centred(block.attn_post_norm, w_o) * block.attn_post_norm.gain
        pattern = pattern * frozen.attn_post_scale.squeeze(-1)[None, :, None]
    read = Read(norm=block.mlp_norm, scale=frozen.mlp_scale)
    skip = _skip_path(read, layer, local, index)
    attn_constant = _attention_constant(frozen)
    constant = attn_constant + layer.constant
    if skip is not None:
        constant = constant + skip.constant
    if skip is not None and not block.parallel:
        constant = constant + skip.push(attn_constant)
    return LinearBlock(
        pattern=pattern.contiguous(),
        w_v=w_v.contiguous(),
        w_o=w_o.contiguous(),
        group=attention.n_heads // attention.n_kv_heads,
        read=read,
        skip=skip,
        written=_written(layer, local, index, constant),
        attn_constant=attn_constant,
        parallel=block.parallel,
    )


def _attended(
    block: LinearBlock, tokens: Float[Tensor, "S d"], embed_constant: Float[Tensor, "S d"]
) -> tuple[Tensor, ...] | None:
    """Images of tokens and constant under the first attention, for prompts of moderate length."""
    if len(tokens) > LONGEST_ATTENDED:
        return None
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


def _written(
    layer: LocalLayer, local: LocalReplacement, index: int, constant: Float[Tensor, "S d"]
) -> tuple[Tensor, ...]:
    dictionary = local.dictionaries[index]
    written = dictionary.decoder_rows(layer.features).to(layer.error.dtype)
    written = written * layer.activations[:, None]
    counts = torch.bincount(layer.positions, minlength=len(layer.error)).tolist()
    return tuple(
        torch.cat([features, error[None], bias[None]])
        for features, error, bias in zip(written.split(counts), layer.error, constant, strict=True)
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


def _skip_path(
    read: Read, layer: LocalLayer, local: LocalReplacement, index: int
) -> SkipPath | None:
    w_skip = local.dictionaries[index].W_skip
    if w_skip is None:
        return None
    matrix = w_skip.to(layer.error.dtype)
    scale = (~layer.anchored)[:, None].to(layer.error.dtype)
    constant = torch.zeros_like(layer.error)
    if read.norm is not None and read.scale is not None:
        if read.norm.bias is not None:
            constant = scale * (matrix @ read.norm.bias)
        matrix, scale = _centred(read.norm, matrix * read.norm.gain), scale * read.scale
    return SkipPath(matrix=matrix, scale=scale, constant=constant)
