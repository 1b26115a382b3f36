"""QK attribution: which pairs of sources made a head attend from one position to another.

With norm scales frozen, a query is a sum over what every source of the graph contributes to it, and
so is a key; their product, the score before the softmax, is therefore an exact sum over pairs:

    score(q, k) = sum_ij Q_i . K_j

(QK attributions, Kamath et al. 2025, "Tracing Attention Computation Through Feature
Interactions"). Q_i and K_j come from one row of direct effects for each number of the head's query
and key, so features, errors, tokens and constants all have their part. A softmax ignores what is
added to all of a query's scores: the contrast, score less the mean score of the other keys, is what
made the head look here rather than elsewhere.

Shape suffixes: C sources, N those that are not zero, h head width, S positions, H heads.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.attention.contributions import KEY, QUERY, Contributions, contributions
from pellucid.attribution.attention.layer_scores import LayerScores, layer_scores
from pellucid.attribution.attention.sources import SourceNames
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import LinearModel
from pellucid.core.errors import ConfigError

PAIRS_AT_ONCE = 1 << 22


class Pair(NamedTuple):
    """One term of a score: a source of the query, one of the key (as columns), and its size."""

    query: int
    key: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QKAttribution:
    """One attention score as a sum over pairs of sources.

    Attributes:
        layer, head, query, key: whose score.
        probability: the attention that the key got.
        score: the model's score, before any softcap.
        explained: what the pairs sum to: the score, or with a contrast the score less the mean
            score of the other keys.
        contrast: whether it is the second.
        query_vectors, key_vectors: what each source contributes to query and key, rotated; the
            scale is in the first. All constants are one source, the last.
        query_answered, key_answered: what the norms leave of that when the source goes (see
            `contributions`).
        names: what the sources are.
        pattern_max_error: see `LayerScores`.
    """

    layer: int
    head: int
    query: int
    key: int
    probability: float
    score: float
    explained: float
    contrast: bool
    query_vectors: Float[Tensor, "C h"]
    key_vectors: Float[Tensor, "C h"]
    query_answered: Float[Tensor, "C h"]
    key_answered: Float[Tensor, "C h"]
    names: SourceNames
    pattern_max_error: float

    def by_query_source(self) -> Float[Tensor, " C"]:
        """What each source of the query adds, over all sources of the key."""
        return self.query_vectors @ self.key_vectors.sum(dim=0)

    def by_key_source(self) -> Float[Tensor, " C"]:
        """What each source of the key adds, over all sources of the query."""
        return self.key_vectors @ self.query_vectors.sum(dim=0)

    def total(self) -> float:
        """The sum over all pairs."""
        return float(self.query_vectors.double().sum(0) @ self.key_vectors.double().sum(0))

    def sum_error(self) -> float:
        """How far the sum over all pairs is from what it explains, relative to the score."""
        scale = max(abs(self.score), abs(self.explained), 1e-6)
        return abs(self.total() - self.explained) / scale

    def without(self, sources: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How what is explained changes when each source goes, from query and key alike.

        Norm scales stay as they were; then this is exact.
        """
        return self._change(self.query_vectors[sources], self.key_vectors[sources])

    def without_answered(self, sources: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """As `without`, while this layer's norms answer (to first order)."""
        return self._change(self.query_answered[sources], self.key_answered[sources])

    def _change(
        self, q_nh: Float[Tensor, "n h"], k_nh: Float[Tensor, "n h"]
    ) -> Float[Tensor, " n"]:
        """Of the product of query and key, when something is taken from both."""
        query_h, key_h = self.query_vectors.sum(dim=0), self.key_vectors.sum(dim=0)
        return (q_nh * k_nh).sum(dim=1) - q_nh @ key_h - k_nh @ query_h

    def by_kind(self) -> Float[Tensor, "4 4"]:
        """The sum over pairs of each kind of query source (rows) and of key source (columns)."""
        return self.names.sums(self.query_vectors) @ self.names.sums(self.key_vectors).T

    def top_pairs(self, count: int) -> tuple[list[Pair], Float[Tensor, "4 4"]]:
        """The largest pairs, and the sizes of all pairs summed by kind (as in `by_kind`)."""
        rows = self.query_vectors.abs().sum(dim=1).nonzero().squeeze(1)
        columns = self.key_vectors.abs().sum(dim=1).nonzero().squeeze(1)
        key_Nh = self.key_vectors[columns]
        key_kinds = self.names.one_hot(columns, key_Nh.dtype)
        sizes = self.query_vectors.new_zeros(4, 4)
        best: list[Pair] = []
        for part in rows.split(max(1, PAIRS_AT_ONCE // max(1, len(columns)))):
            values = self.query_vectors[part] @ key_Nh.T
            sizes += self.names.one_hot(part, key_Nh.dtype).T @ values.abs() @ key_kinds
            picked = values.abs().flatten().topk(min(count, values.numel())).indices
            best += [
                Pair(int(part[i // len(columns)]), int(columns[i % len(columns)]), float(value))
                for i, value in zip(picked.tolist(), values.flatten()[picked], strict=True)
            ]
            best = sorted(best, key=lambda pair: -abs(pair.value))[:count]
        return best, sizes

    def to_json(self, top: int = 12) -> dict[str, Any]:
        """The record that a graph carries: the largest pairs and sources, and every share.

        Shares are of the summed sizes of all pairs (for sources: of all sources of that side), so
        that those of what is listed and what is not sum to one.
        """
        pairs, sizes = self.top_pairs(top)
        whole = max(float(sizes.sum()), 1e-30)
        name, kinds = self.names.describe, self.names.KINDS

        def largest(values: Float[Tensor, " C"]) -> list[dict[str, Any]]:
            picked = values.abs().topk(min(top, len(values))).indices.tolist()
            everything = max(float(values.abs().sum()), 1e-30)
            return [
                {
                    "source": name(i),
                    "value": float(values[i]),
                    "share": abs(float(values[i])) / everything,
                }
                for i in picked
                if values[i] != 0
            ]

        def table(values: Float[Tensor, "4 4"]) -> dict[str, dict[str, float]]:
            rows = [dict(zip(kinds, row, strict=True)) for row in values.tolist()]
            return dict(zip(kinds, rows, strict=True))

        return {
            "layer": self.layer,
            "head": self.head,
            "query": self.query,
            "key": self.key,
            "probability": self.probability,
            "score": self.score,
            "explained": self.explained,
            "contrast": self.contrast,
            "sum_error": self.sum_error(),
            "pattern_max_error": self.pattern_max_error,
            "pairs": [
                {
                    "query": name(pair.query),
                    "key": name(pair.key),
                    "value": pair.value,
                    "share": abs(pair.value) / whole,
                }
                for pair in pairs
            ],
            "query_sources": largest(self.by_query_source()),
            "key_sources": largest(self.by_key_source()),
            "by_kind": table(self.by_kind()),
            "shares": table(sizes / whole),
            "constant_share": float(1 - sizes[:3, :3].sum() / whole),
            "error_share": float((sizes[1].sum() + sizes[:, 1].sum() - sizes[1, 1]) / whole),
        }


@torch.no_grad()
def qk_attribution(
    linear: LinearModel,
    table: SourceTable,
    layer: int,
    head: int,
    query: int,
    key: int,
    *,
    contrast: bool = False,
    scores: LayerScores | None = None,
) -> QKAttribution:
    """Attribute one attention score to pairs of sources.

    Args:
        linear: the affine map of the prompt.
        table: its columns.
        layer, head: the attention head.
        query, key: the position that attends and the one attended to.
        contrast: explain the score less the mean score of the other keys (at most 32, those that
            are attended to most); takes head width rows for every key instead of for one.
        scores: of that layer, computed before for another head of it.

    Raises:
        ConfigError: no such head, a key that the query does not see, or no other key to contrast.
        SiteError: no such layer.
    """
    scores = layer_scores(linear, layer) if scores is None else scores
    _check(scores, head, query, key, contrast)
    key_head, scale = scores.weights.key_head(head), scores.weights.scale
    of_query = contributions(linear, table, scores, QUERY, head, [query])
    of_key = contributions(linear, table, scores, KEY, key_head, [key])
    score = explained = float(scores.scores[head, query, key])
    if contrast:
        others = scores.others(head, query, key).tolist()
        rest = contributions(linear, table, scores, KEY, key_head, others)
        of_key = Contributions(*(a - b for a, b in zip(of_key, rest, strict=True)))
        explained = scores.contrast(head, query, key)
    return QKAttribution(
        layer=layer,
        head=head,
        query=query,
        key=key,
        probability=float(scores.pattern[head, query, key]),
        score=score,
        explained=explained,
        contrast=contrast,
        query_vectors=of_query.held * scale,
        key_vectors=of_key.held,
        query_answered=of_query.answered * scale,
        key_answered=of_key.answered,
        names=SourceNames(linear, table),
        pattern_max_error=scores.pattern_max_error(),
    )


def _check(scores: LayerScores, head: int, query: int, key: int, contrast: bool) -> None:
    n_heads, length, _ = scores.pattern.shape
    if not 0 <= head < n_heads:
        raise ConfigError(f"head {head} of layer {scores.layer}; use 0 to {n_heads - 1}")
    for name, position in (("query", query), ("key", key)):
        if not 0 <= position < length:
            raise ConfigError(f"{name} position {position}; the prompt has 0 to {length - 1}")
    if scores.pattern[head, query, key] == 0:
        raise ConfigError(
            f"position {query} does not see position {key} in layer {scores.layer}; choose a key "
            "up to the query and inside the layer's window"
        )
    if contrast and len(scores.others(head, query, key)) == 0:
        raise ConfigError(
            f"position {query} sees no position but {key} in layer {scores.layer}, so there is "
            "nothing to contrast it with; leave the contrast out"
        )
