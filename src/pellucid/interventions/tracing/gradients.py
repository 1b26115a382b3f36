"""Gradients of the metric at many places in one backward pass, and their two corrections.

Three ways to take the gradient at the base prompt:

    plain       as it is (attribution patching)
    dropped     one row a layer, in which no gradient flows through that layer's attention and MLP
                (GradDrop: effects along different paths no longer cancel in every row)
    integrated  one row a step, in which the embeddings are part of the way to the source's

Shape legend: R rows, S positions, D width of a place's tensor, H heads, G key-value heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.places import HeadSite
from pellucid.core.types import Site
from pellucid.interventions.tracing.metrics import Metric
from pellucid.models.model import LanguageModel
from pellucid.models.query_key import QueryKeyWeights, Rotation
from pellucid.models.taps import TapCall, TapFunction, TapPoint

Taps = list[tuple[TapPoint, TapFunction]]


def point_gradients(
    model: LanguageModel,
    ids: Int[Tensor, " S"],
    points: Sequence[TapPoint],
    metric: Metric,
    *,
    rows: int = 1,
    before: Sequence[tuple[TapPoint, TapFunction]] = (),
    after: Sequence[tuple[TapPoint, TapFunction]] = (),
) -> dict[TapPoint, Float[Tensor, "R S D"]]:
    """The gradient of every row's metric at some points, in one forward and one backward pass.

    Args:
        model: to run.
        ids: the prompt; all rows have it.
        points: where; a point that does not reach the metric has a gradient of 0.
        metric: of the logits at the last position.
        rows: how many.
        before: taps that make the rows differ, acting before the gradient is taken at a point.
        after: taps that act after it.
    """
    offsets: dict[TapPoint, Tensor] = {}

    def leaf(point: TapPoint) -> TapFunction:
        def add(value: Tensor, _: TapCall) -> Tensor:
            offsets[point] = torch.zeros_like(value).requires_grad_()
            return value + offsets[point]

        return add

    chosen = list(dict.fromkeys(points))
    readers: Taps = [(point, leaf(point)) for point in chosen]
    with torch.enable_grad(), model.tapped([*before, *readers, *after]):
        total = metric(model.logits(ids.expand(rows, -1))[:, -1]).sum()
        found = torch.autograd.grad(
            total, [offsets[point] for point in chosen], allow_unused=True, materialize_grads=True
        )
    return dict(zip(chosen, found, strict=True))


def dropping(model: LanguageModel) -> Taps:
    """Taps by which row l lets no gradient through layer l's attention and MLP, a row a layer."""

    def drop(layer: int) -> TapFunction:
        def tap(value: Tensor, _: TapCall) -> Tensor:
            row = torch.arange(len(value), device=value.device) == layer
            return torch.where(row[:, None, None], value.detach(), value)

        return tap

    return [
        (model.point(Site(kind, layer)), drop(layer))
        for layer in range(model.n_layers)
        for kind in ("attn_out", "mlp_out")
    ]


def interpolating(
    model: LanguageModel,
    base: Float[Tensor, "S d"],
    source: Float[Tensor, "S d"],
    steps: int,
) -> Taps:
    """Taps by which row k has embeddings (k + 1/2) / `steps` of the way from base to source."""
    weights = ((torch.arange(steps, device=base.device) + 0.5) / steps)[:, None, None]
    between = base + weights.to(base.dtype) * (source - base)
    return [(model.point(Site("embed")), lambda value, _: between.expand_as(value))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionRun:
    """What a layer's attention did in one run.

    Attributes:
        weights: of queries and keys.
        rotation: of the positions, None for a family without.
        query: before any norm and rotation, `[S, H, h]`.
        key: before any norm and rotation, `[S, G, h]`.
        value: `[S, G, h]`.
        pattern: how much each query looks at each key; 0 where it may not.
    """

    weights: QueryKeyWeights
    rotation: Rotation | None
    query: Float[Tensor, "S H h"]
    key: Float[Tensor, "S G h"]
    value: Float[Tensor, "S G h"]
    pattern: Float[Tensor, "H S S"]

    def scores(
        self, query: Float[Tensor, "S H h"], key: Float[Tensor, "S G h"]
    ) -> Float[Tensor, "H S S"]:
        """What the softmax is given for these raw queries and keys."""
        sides = []
        for side, raw in ((self.weights.query, query), (self.weights.key, key)):
            normed = raw * side.factors(raw)
            sides.append(normed if self.rotation is None else self.rotation.apply_all(normed))
        group = self.weights.query.n_heads // self.weights.key.n_heads
        k_SHh = sides[1].repeat_interleave(group, dim=1)
        raw_HST = self.weights.scale * torch.einsum("qhe,khe->hqk", sides[0], k_SHh)
        return self.weights.capped(raw_HST).masked_fill(self.pattern == 0, -torch.inf)


@torch.no_grad()
def attention_run(model: LanguageModel, ids: Int[Tensor, " S"], layer: int) -> AttentionRun:
    """Run a prompt and read what a layer's attention is made of."""
    weights, attention = model.query_key(layer), model.block(layer).attention
    kept: list[TapCall] = []
    point = model.attention_pattern_point(layer)
    with model.tapped([(point, lambda _, call: kept.append(call))]):
        model.logits(ids[None])
    x = kept[0].input[0]
    value = x @ attention.w_v if attention.b_v is None else x @ attention.w_v + attention.b_v
    return AttentionRun(
        weights=weights,
        rotation=model.rotation(layer, len(ids)),
        query=weights.query.project(x),
        key=weights.key.project(x),
        value=value.unflatten(-1, (attention.n_kv_heads, attention.d_head)),
        pattern=kept[0].outputs[1][0],
    )


@torch.no_grad()
def softmax_effects(
    site: HeadSite, base: AttentionRun, source: AttentionRun, z_gradient: Float[Tensor, "R S Hh"]
) -> Float[Tensor, "R S"]:
    """First-order effect of patching a head's query or key, through the exact softmax (AtP*).

    The pattern is recomputed with the patched query, or with one patched key at a time; only what
    follows the pattern is taken to first order (Kramar et al. 2024, section 3.1). Where a norm
    spans all heads, the patch moves the other heads' patterns too, and that is counted.

    Args:
        site: a `q` or `k` of one head.
        base: the run that is patched.
        source: the run that the query or key comes from.
        z_gradient: gradient of the metric at the layer's `z`.
    """
    assert site.head is not None
    n_heads, n_kv_heads = base.query.shape[1], base.key.shape[1]
    query, key = base.query.clone(), base.key.clone()
    if site.kind == "q":
        query[:, site.head] = source.query[:, site.head]
    else:
        key[:, site.head] = source.key[:, site.head]
    dz_RSHh = z_gradient.unflatten(-1, (n_heads, -1))
    v_THh = base.value.repeat_interleave(n_heads // n_kv_heads, dim=1)
    dpattern_RHST = torch.einsum("rshe,the->rhst", dz_RSHh, v_THh.to(dz_RSHh))
    old, new = base.scores(base.query, base.key), base.scores(query, key)
    if site.kind == "q":
        change = new.softmax(-1) - old.softmax(-1)
        return (change * dpattern_RHST).sum(-1).sum(1)
    return _one_key_at_a_time(old, new, dpattern_RHST).sum(1)


def _one_key_at_a_time(
    old: Float[Tensor, "H S T"], new: Float[Tensor, "H S T"], dpattern: Float[Tensor, "R H S T"]
) -> Float[Tensor, "R H T"]:
    """Effect of giving key t its new score for every query, the other keys kept, for each t.

    With p the old pattern and w = p_t exp(new - old): the new pattern is p / n for the other keys
    and w / n at t, where n = 1 - p_t + w.
    """
    seen = torch.isfinite(old)
    p, log_p = old.softmax(-1), old.log_softmax(-1)
    w = torch.where(seen, (log_p + torch.where(seen, new - old, 0.0)).exp(), 0.0)
    mean = (p * dpattern).sum(-1, keepdim=True)
    return ((mean + (w - p) * dpattern) / (1 - p + w) - mean).sum(-2)
