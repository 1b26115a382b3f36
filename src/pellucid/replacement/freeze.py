"""One forward pass, with everything nonlinear in it kept: attention patterns and norm scales.

With these held fixed, and each MLP's output taken as given, the model is an affine map of its
residual stream. `freeze` records them; `frozen_taps` makes the real modules compute with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import ModelError
from pellucid.core.types import Site
from pellucid.models.linear import AttentionWeights, BlockLinear, NormWeights
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint

Taps = list[tuple[TapPoint | Site, TapFunction]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenLayer:
    """What one block computed. S positions, H heads, d model width.

    Scales are the reciprocal rms or standard deviation of each norm, None where there is none.
    """

    block: BlockLinear
    pattern: Float[Tensor, "H S S"]
    attn_scale: Float[Tensor, "S 1"] | None
    attn_post_scale: Float[Tensor, "S 1"] | None
    mlp_scale: Float[Tensor, "S 1"] | None
    mlp_post_scale: Float[Tensor, "S 1"] | None
    mlp_in: Float[Tensor, "S d"]
    mlp_out: Float[Tensor, "S d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenRun:
    """A forward pass over one prompt, frozen.

    `logits` are the unembedding's own output at every position, before any softcap.
    """

    model: LanguageModel
    ids: Int[Tensor, " S"]
    embed: Float[Tensor, "S d"]
    layers: tuple[FrozenLayer, ...]
    final_norm: NormWeights
    final_scale: Float[Tensor, "S 1"]
    logits: Float[Tensor, "S V"]
    residuals: Mapping[Site, Float[Tensor, "S d"]]

    def residual(self, site: Site) -> Float[Tensor, "S d"]:
        """The residual stream at `resid_pre`, `resid_mid` or `resid_post` of a layer."""
        if site.kind == "resid_post" and site.layer + 1 < len(self.layers):
            site = Site("resid_pre", site.layer + 1)
        return self.residuals[site]

    def probabilities(self, position: int = -1) -> Float[Tensor, " V"]:
        """The model's next-token probabilities at a position."""
        logits, cap = self.logits[position], self.model.logit_softcap
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return logits.softmax(dim=-1)


class _Recorder:
    """Taps that keep what they see, by name, for one sequence."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def value(self, name: str) -> TapFunction:
        def record(value: Tensor, _call: TapCall) -> None:
            self.kept[name] = value[0].clone()

        return record

    def pattern(self, name: str) -> TapFunction:
        def record(_value: Tensor, call: TapCall) -> None:
            self.kept[name] = call.outputs[1][0].clone()

        return record

    def scale(self, name: str, norm: NormWeights) -> TapFunction:
        def record(_value: Tensor, call: TapCall) -> None:
            self.kept[name] = norm.scale(call.input)[0].clone()

        return record


@torch.no_grad()
def freeze(model: LanguageModel, ids: Int[Tensor, " S"]) -> FrozenRun:
    """Run the prompt once and record what the frozen model needs.

    Raises:
        ModelError: the model computes something that is not finite on this prompt.
    """
    blocks = [model.block(layer) for layer in range(model.n_layers)]
    final_norm, sites, recorder = model.final_norm(), _residual_sites(blocks), _Recorder()
    taps: Taps = [
        (Site("embed"), recorder.value("embed")),
        (model.unembedding_point(), recorder.value("logits")),
        (TapPoint(final_norm.path, "output"), recorder.scale("final", final_norm)),
    ]
    for layer, block in enumerate(blocks):
        taps += [
            (model.attention_pattern_point(layer), recorder.pattern(f"pattern{layer}")),
            (Site("mlp_in", layer), recorder.value(f"mlp_in{layer}")),
            (Site("mlp_out", layer), recorder.value(f"mlp_out{layer}")),
        ]
        for name, norm in _norms(block):
            taps.append((TapPoint(norm.path, "output"), recorder.scale(f"{name}{layer}", norm)))
    taps += [(site, recorder.value(str(site))) for site in sites]
    with model.tapped(taps):
        model.logits(ids[None])
    kept = recorder.kept
    _check_finite(model, {str(site): kept[str(site)] for site in sites})
    return FrozenRun(
        model=model,
        ids=ids,
        embed=kept["embed"],
        layers=tuple(_frozen_layer(kept, layer, block) for layer, block in enumerate(blocks)),
        final_norm=final_norm,
        final_scale=kept["final"],
        logits=kept["logits"],
        residuals={site: kept[str(site)] for site in sites},
    )


def _frozen_layer(kept: Mapping[str, Tensor], layer: int, block: BlockLinear) -> FrozenLayer:
    return FrozenLayer(
        block=block,
        pattern=kept[f"pattern{layer}"],
        attn_scale=kept.get(f"attn{layer}"),
        attn_post_scale=kept.get(f"attn_post{layer}"),
        mlp_scale=kept.get(f"mlp{layer}"),
        mlp_post_scale=kept.get(f"mlp_post{layer}"),
        mlp_in=kept[f"mlp_in{layer}"],
        mlp_out=kept[f"mlp_out{layer}"],
    )


def _check_finite(model: LanguageModel, residuals: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in residuals.items() if not bool(value.isfinite().all())]
    if bad:
        first = bad[0]
        raise ModelError(
            f"{model.name} computes values that are not finite at {first} on this prompt; its "
            "weights hold NaN or its dtype overflows: load it again, or in float32"
        )


def _residual_sites(blocks: Sequence[BlockLinear]) -> list[Site]:
    """Every place of the residual stream, each once, from the bottom."""
    sites = []
    for layer, block in enumerate(blocks):
        sites.append(Site("resid_pre", layer))
        if not block.parallel:
            sites.append(Site("resid_mid", layer))
    return [*sites, Site("resid_post", len(blocks) - 1)]


def _norms(block: BlockLinear) -> Sequence[tuple[str, NormWeights]]:
    named = (
        ("attn", block.attn_norm),
        ("attn_post", block.attn_post_norm),
        ("mlp", block.mlp_norm),
        ("mlp_post", block.mlp_post_norm),
    )
    return [(name, norm) for name, norm in named if norm is not None]


def attention_taps(run: FrozenRun) -> Taps:
    """Taps that make every attention module use the recorded pattern on its current values."""
    return [
        (
            TapPoint(layer.block.attention.path, "output"),
            partial(_frozen_attention, weights=layer.block.attention, pattern=layer.pattern),
        )
        for layer in run.layers
    ]


def norm_taps(run: FrozenRun) -> Taps:
    """Taps that make every norm use its recorded scale (an MLP's post-norm lies inside its output,
    which has its own tap)."""
    norms = [(run.final_norm, run.final_scale)]
    for layer in run.layers:
        block = layer.block
        norms += [
            (norm, scale)
            for norm, scale in (
                (block.attn_norm, layer.attn_scale),
                (block.attn_post_norm, layer.attn_post_scale),
                (block.mlp_norm, layer.mlp_scale),
            )
            if norm is not None and scale is not None
        ]
    return [
        (TapPoint(norm.path, "output"), partial(_frozen_norm, norm=norm, scale=scale))
        for norm, scale in norms
    ]


def _frozen_norm(
    _value: Tensor, call: TapCall, *, norm: NormWeights, scale: Float[Tensor, "S 1"]
) -> Tensor:
    return norm.apply(call.input, scale)


def _frozen_attention(
    value: Tensor, call: TapCall, *, weights: AttentionWeights, pattern: Float[Tensor, "H S S"]
) -> Tensor:
    return weights.apply(call.input, pattern[None]).to(value.dtype)
