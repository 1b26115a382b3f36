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
from pellucid.models.taps import TapCall, TapFunction, TapPoint

Taps = list[tuple[TapPoint, TapFunction]]


def point_gradients(
    model: LanguageModel,
    ids: Int[Tensor, " S"],
    points: Sequence[TapPoint],
    metric: Metric,
    *,
    rows: int = 1,
    taps: Taps | None = None,
) -> dict[TapPoint, Float[Tensor, "R S D"]]:
    """The gradient of every row's metric at some points, in one forward and one backward pass.

    Args:
        model: to run.
        ids: the prompt; all rows have it.
        points: where; a point that does not reach the metric has a gradient of 0.
        metric: of the logits at the last position.
        rows: how many.
        taps: what makes the rows differ.
    """
    offsets: dict[TapPoint, Tensor] = {}

    def leaf(point: TapPoint) -> TapFunction:
        def add(value: Tensor, _: TapCall) -> Tensor:
            offsets[point] = torch.zeros_like(value).requires_grad_()
            return value + offsets[point]

        return add

    chosen = list(dict.fromkeys(points))
    readers: Taps = [(point, leaf(point)) for point in chosen]
    with torch.enable_grad(), model.tapped(readers), model.tapped(taps or []):
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
    """What a layer's attention did in one run: raw queries and keys, rotated ones, values, pattern.

    Attributes:
        query: `[S, H, h]`, normed and rotated.
        key: `[S, G, h]`, normed and rotated.
        value: `[S, G, h]`.
        pattern: which key a query may look at.
    """

    query: Float[Tensor, "S H h"]
    key: Float[Tensor, "S G h"]
    value: Float[Tensor, "S G h"]
    pattern: Float[Tensor, "H S S"]


@torch.no_grad()
def attention_run(model: LanguageModel, ids: Int[Tensor, " S"], layer: int) -> AttentionRun:
    """Run a prompt and read what a layer's attention is made of."""
    weights, rotation = model.query_key(layer), model.rotation(layer, len(ids))
    attention = model.block(layer).attention
    kept: list[TapCall] = []
    point = model.attention_pattern_point(layer)
    with model.tapped([(point, lambda _, call: kept.append(call))]):
        model.logits(ids[None])
    x = kept[0].input[0]
    sides = []
    for side in (weights.query, weights.key):
        raw = side.project(x)
        normed = raw * side.factors(raw)
        sides.append(normed if rotation is None else rotation.apply_all(normed))
    value = x @ attention.w_v if attention.b_v is None else x @ attention.w_v + attention.b_v
    return AttentionRun(
        query=sides[0],
        key=sides[1],
        value=value.unflatten(-1, (attention.n_kv_heads, attention.d_head)),
        pattern=kept[0].outputs[1][0],
    )


@torch.no_grad()
def softmax_effects(
    model: LanguageModel,
    site: HeadSite,
    base: AttentionRun,
    source: AttentionRun,
    z_gradient: Float[Tensor, "R S Hh"],
) -> Float[Tensor, "R S"]:
    """First-order effect of patching a head's query or key, through the exact softmax (AtP*).

    The pattern is recomputed with the patched query, or with one patched key at a time; only what
    follows the pattern is taken to first order (Kramar et al. 2024, section 3.1).

    Args:
        model: that ran.
        site: a `q` or `k` of one head.
        base: the run that is patched.
        source: the run that the query or key comes from.
        z_gradient: gradient of the metric at the layer's `z`.
    """
    weights = model.query_key(site.layer)
    n_heads, group = weights.query.n_heads, weights.query.n_heads // weights.key.n_heads
    assert site.head is not None
    heads = [site.head] if site.kind == "q" else range(site.head * group, (site.head + 1) * group)
    effects = z_gradient.new_zeros(z_gradient.shape[:2])
    for head in heads:
        own = head // group
        dz_RSh = z_gradient.unflatten(-1, (n_heads, -1))[:, :, head]
        dpattern_RST = torch.einsum("rsh,th->rst", dz_RSh, base.value[:, own])
        hidden = base.pattern[head] == 0

        def scores(query: Tensor, key: Tensor, hidden: Tensor = hidden) -> Tensor:
            raw = weights.capped(weights.scale * query @ key.T)
            return raw.masked_fill(hidden, -torch.inf)

        old = scores(base.query[:, head], base.key[:, own])
        if site.kind == "q":
            new = scores(source.query[:, head], base.key[:, own])
            change = new.softmax(-1) - old.softmax(-1)
            effects += (change * dpattern_RST).sum(-1)
        else:
            new = scores(base.query[:, head], source.key[:, own])
            effects += _one_key_at_a_time(old, new, dpattern_RST)
    return effects


def _one_key_at_a_time(
    old: Float[Tensor, "S T"], new: Float[Tensor, "S T"], dpattern: Float[Tensor, "R S T"]
) -> Float[Tensor, "R T"]:
    """Effect of giving key t its new score for every query, the other keys kept, for each t.

    With p the old pattern and w = p_t exp(new - old): the new pattern is p / n for the other keys
    and w / n at t, where n = 1 - p_t + w.
    """
    p = old.softmax(-1)
    log_p = old.log_softmax(-1)
    shift = torch.where(torch.isfinite(old), new - old, torch.zeros_like(old))
    w = torch.where(torch.isfinite(old), (log_p + shift).exp(), torch.zeros_like(old))
    n = 1 - p + w
    mean = (p * dpattern).sum(-1, keepdim=True)
    return ((mean + (w - p) * dpattern) / n - mean).sum(1)
