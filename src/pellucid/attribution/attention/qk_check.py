"""A causal check of a QK attribution: take its top sources out, and read the score again.

With everything frozen but the score itself the prediction must be exact. In the real model nothing
is frozen, and what is read is the score less the mean of the other keys (the rest a softmax does
not see), and the attention probability. There two predictions are compared with what is measured:
that of frozen norms, and that of norms of the layer that answer (see `contributions`). A matched
random control (another feature of the same layer, at the same position, with a change of the same
norm) shows what agreement means nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.attention.layer_scores import LayerScores
from pellucid.attribution.attention.qk import QKAttribution
from pellucid.attribution.attention.sources import SourceKey, Write, feature_writes, writes
from pellucid.attribution.checks.causal import spearman
from pellucid.attribution.checks.measure import frozen_taps
from pellucid.attribution.linearise import LinearModel
from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapPoint
from pellucid.replacement.freeze import Taps

BOOTSTRAPS = 1000
ROWS_AT_ONCE = 32

Removal = tuple[int, list[Write]]
"""A position, and the vectors that are subtracted there."""


class Reading(NamedTuple):
    """What B runs show of one attention score: the contrast, and the probability of the key."""

    contrast: Float[Tensor, " B"]
    probability: Float[Tensor, " B"]


@torch.no_grad()
def check_qk(
    linear: LinearModel,
    scores: LayerScores,
    attribution: QKAttribution,
    *,
    sources: int = 12,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Remove the features that matter most to an attention score, one at a time.

    Args:
        linear: the affine map of the prompt.
        scores: of the attribution's layer.
        attribution: a QK attribution, made with `contrast`.
        sources: how many features to remove.
        seed: of the control features and the bootstrap.

    Returns:
        `frozen_max_error` (relative to the largest effect), rank correlations of predicted with
        measured change in the real model and under the random control, with 95% bootstrap
        intervals, each also for the prediction with answering norms, and one row a feature; None
        where no feature matters.
    """
    assert attribution.contrast, "what a softmax sees is the contrast"
    chosen, predicted = _top_features(attribution, sources)
    answered = attribution.without_answered(chosen)
    if len(chosen) == 0:
        return None
    keys = [attribution.names.key(int(number)) for number in chosen]
    removals: list[Removal] = [(key.position, writes(linear, key)) for key in keys]
    generator = torch.Generator().manual_seed(seed)
    controls = [
        (position, _control(linear, key, removed, generator))
        for key, (position, removed) in zip(keys, removals, strict=True)
    ]
    read = partial(_read, linear, scores, attribution)
    frozen, real, random = read(removals, "frozen"), read(removals, "real"), read(controls, "real")
    before = float(scores.pattern[attribution.head, attribution.query, attribution.key])
    largest = max(float(frozen.contrast.abs().max()), 1e-12)
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {
        "n": len(keys),
        "frozen_max_error": float((frozen.contrast - predicted).abs().max()) / largest,
        "probability": before,
    }
    for name, reading in (("real", real), ("random", random)):
        result |= _agreement(name, predicted, reading.contrast, rng)
        result |= _agreement(f"{name}_answered", answered, reading.contrast, rng)
    result["median_effect_ratio"] = _ratio(real.contrast, random.contrast)
    result["rows"] = [
        {
            "source": key.to_json(),
            "predicted": float(predicted[i]),
            "predicted_answered": float(answered[i]),
            "frozen": float(frozen.contrast[i]),
            "real": float(real.contrast[i]),
            "random_real": float(random.contrast[i]),
            "probability_change": float(real.probability[i]) - before,
            "random_probability_change": float(random.probability[i]) - before,
        }
        for i, key in enumerate(keys)
    ]
    return result


def pooled(checks: Sequence[dict[str, Any] | None], *, seed: int = 0) -> dict[str, Any] | None:
    """Several checks as one: the features of all, each score's effects in units of its largest.

    One score has few features, so its own correlations have wide intervals.
    """
    rng = np.random.default_rng(seed)
    done = [check for check in checks if check is not None]
    if not done:
        return None
    names = ("predicted", "predicted_answered", "real", "random_real")
    columns: dict[str, list[float]] = {name: [] for name in names}
    for check in done:
        unit = max(abs(row["predicted"]) for row in check["rows"])
        for name, values in columns.items():
            values += [row[name] / unit for row in check["rows"]]
    predicted, answered, real, random = (torch.tensor(values) for values in columns.values())
    return {
        "n": len(predicted),
        "scores": len(done),
        "frozen_max_error": max(check["frozen_max_error"] for check in done),
        **_agreement("real", predicted, real, rng),
        **_agreement("random", predicted, random, rng),
        **_agreement("real_answered", answered, real, rng),
        **_agreement("random_answered", answered, random, rng),
        "median_effect_ratio": _ratio(real, random),
    }


def _top_features(
    attribution: QKAttribution, count: int
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The features without which the score would change most, and by how much."""
    features = (attribution.names.kind == 0).nonzero().squeeze(1)
    change = attribution.without(features)
    order = change.abs().argsort(descending=True, stable=True)[:count]
    order = order[change[order] != 0]
    return features[order], change[order]


def _control(
    linear: LinearModel, key: SourceKey, removed: Sequence[Write], generator: torch.Generator
) -> list[Write]:
    """Another feature of the layer, inactive at the position, written at the same norms."""
    active = linear.local.layers[key.layer].active
    taken = set(active.features[active.positions == key.position].tolist())
    one = active.activations.new_ones(1)
    for other in torch.randperm(active.num_features, generator=generator).tolist():
        written = feature_writes(linear, replace(key, index=other), one)
        norms = [write.vector.norm() for write in written]
        if other not in taken and min(norms) > 0:
            return [
                Write(write.site, write.vector * (own.vector.norm() / norm))
                for write, norm, own in zip(written, norms, removed, strict=True)
            ]
    return []


def _read(
    linear: LinearModel,
    scores: LayerScores,
    attribution: QKAttribution,
    removals: Sequence[Removal],
    freedom: Literal["frozen", "real"],
) -> Reading:
    """Changes of the contrast, and probabilities, with each removal made in a run of its own.

    `frozen`: all that the attribution holds fixed stays; `real`: nothing does.
    """
    parts = [
        _run(linear, scores, attribution, removals[start : start + ROWS_AT_ONCE], freedom)
        for start in range(0, len(removals), ROWS_AT_ONCE)
    ]
    return Reading(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _run(
    linear: LinearModel,
    scores: LayerScores,
    attribution: QKAttribution,
    removals: Sequence[Removal],
    freedom: Literal["frozen", "real"],
) -> Reading:
    run, head, query, key = linear.local.run, *_place(attribution)
    read: dict[str, Tensor] = {}

    def keep(_value: Tensor, call: TapCall) -> None:
        read["x"], read["pattern"] = call.input, call.outputs[1]

    taps: Taps = frozen_taps(linear.local) if freedom == "frozen" else []
    taps = taps + _removal_taps(removals) + [(TapPoint(scores.weights.path, "output"), keep)]
    with run.model.tapped(taps):
        run.model.logits(run.ids.expand(len(removals) + 1, -1))
    others = scores.others(head, query, key)
    contrasts = []
    for x in read["x"]:
        factors = scores.factors if freedom == "frozen" else None
        own = scores.weights.scores(x, scores.rotation, factors)[head, query]
        contrasts.append(own[key] - own[others].mean())
    contrast = torch.stack(contrasts)
    return Reading(contrast[1:] - contrast[0], read["pattern"][1:, head, query, key])


def _place(attribution: QKAttribution) -> tuple[int, int, int]:
    return attribution.head, attribution.query, attribution.key


def _removal_taps(removals: Sequence[Removal]) -> Taps:
    """Taps that subtract; run 0 stays as it is."""
    by_site: dict[Site, list[tuple[int, int, Tensor]]] = {}
    for number, (position, removed) in enumerate(removals):
        for write in removed:
            by_site.setdefault(write.site, []).append((number + 1, position, write.vector))
    taps: Taps = []
    for site, parts in by_site.items():

        def subtract(
            value: Tensor, _call: TapCall, parts: list[tuple[int, int, Tensor]] = parts
        ) -> Tensor:
            changed = value.clone()
            for row, position, vector in parts:
                changed[row, position] -= vector.to(value.dtype)
            return changed

        taps.append((site, subtract))
    return taps


def _agreement(
    name: str, predicted: Float[Tensor, " n"], measured: Float[Tensor, " n"], rng: Any
) -> dict[str, Any]:
    a, b = predicted.double().numpy(), measured.double().numpy()
    picks = rng.integers(len(a), size=(BOOTSTRAPS, len(a)))
    values = np.concatenate([_spearman_rows(a[part], b[part]) for part in np.array_split(picks, 8)])
    finite = values[np.isfinite(values)]
    interval = [float(x) for x in np.quantile(finite, [0.025, 0.975])] if len(finite) else None
    return {
        f"spearman_{name}": spearman(a, b),
        f"spearman_{name}_interval": interval,
        f"sign_agreement_{name}": float((np.sign(a) == np.sign(b)).mean()),
    }


def _spearman_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`spearman` of each row of `a` with that of `b`, NaN where undefined; for short rows."""
    centred = []
    for values in (a, b):
        below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
        same = (values[:, None, :] == values[:, :, None]).sum(axis=2)
        rank = below + same / 2.0
        centred.append(rank - rank.mean(axis=1, keepdims=True))
    x, y = centred
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=1) / np.where(norm > 0, norm, np.nan)


def _ratio(real: Float[Tensor, " n"], control: Float[Tensor, " n"]) -> float | None:
    """Median |effect| of the features over that of their controls."""
    reference = float(control.abs().median())
    return float(real.abs().median()) / reference if reference > 0 else None
