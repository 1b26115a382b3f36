"""The attention scores of one layer on the traced prompt, and all that is frozen of them.

Shape suffixes: S positions, H heads, K key heads, h head width, d model width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel, Read
from pellucid.core.types import Site
from pellucid.models.query_key import QueryKeyWeights, Rotation

MOST_KEYS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScores:
    """What a layer's attention computed on the prompt, with all that is frozen of it.

    Attributes:
        layer: the layer.
        weights: of queries and keys.
        rotation: of the positions, None where the family has none.
        resid: the residual stream that the block reads.
        read: how attention's input is read from it.
        raw: queries and keys before their norm.
        factors: what the norm multiplies them by.
        scores: before softcap and mask.
        pattern: the recorded attention pattern.
    """

    layer: int
    weights: QueryKeyWeights
    rotation: Rotation | None
    resid: Float[Tensor, "S d"]
    read: Read
    raw: tuple[Float[Tensor, "S H h"], Float[Tensor, "S K h"]]
    factors: tuple[Float[Tensor, "S H h"], Float[Tensor, "S K h"]]
    scores: Float[Tensor, "H S S"]
    pattern: Float[Tensor, "H S S"]

    def pattern_max_error(self) -> float:
        """How far the softmax of the scores is from the recorded pattern, at its worst."""
        scores = self.weights.capped(self.scores).masked_fill(self.pattern == 0, -torch.inf)
        return float((scores.softmax(dim=-1) - self.pattern).abs().max())

    def others(self, head: int, query: int, key: int) -> Int[Tensor, " n"]:
        """The other keys that the query attends to: at most `MOST_KEYS`, those it attends to most.

        Every key takes head width rows, so that in a long prompt all of them would cost more than
        the graph.
        """
        attention = self.pattern[head, query].clone()
        attention[key] = 0
        count = min(MOST_KEYS, int((attention > 0).sum()))
        return attention.topk(count).indices.sort().values

    def contrast(self, head: int, query: int, key: int) -> float:
        """The score of a key less the mean score of the others; the score where there is none."""
        scores, others = self.scores[head, query], self.others(head, query, key)
        return float(scores[key] - (scores[others].mean() if len(others) else 0.0))


@torch.no_grad()
def layer_scores(linear: LinearModel, layer: int) -> LayerScores:
    """Queries, keys and scores of a layer on the traced prompt.

    Raises:
        SiteError: the model has no such layer.
    """
    run = linear.local.run
    model, length = run.model, len(run.ids)
    weights = model.query_key(layer)
    resid, frozen = run.residual(Site("resid_pre", layer)), run.layers[layer]
    norm, scale = frozen.block.attn_norm, frozen.attn_scale
    x = resid if norm is None or scale is None else norm.apply(resid, scale)
    rotation = model.rotation(layer, length)
    raw = weights.query.project(x), weights.key.project(x)
    return LayerScores(
        layer=layer,
        weights=weights,
        rotation=rotation,
        resid=resid,
        read=Read(norm=norm, scale=scale),
        raw=raw,
        factors=(weights.query.factors(raw[0]), weights.key.factors(raw[1])),
        scores=weights.scores(x, rotation),
        pattern=frozen.pattern,
    )
