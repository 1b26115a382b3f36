"""EAP-IG: a score for every edge between components, the best of them verified by path patching.

    score(u -> v) = sum over tokens of (u(source) - u(base)) . mean over steps of dm / d(input of v)

u is what a component adds to the residual stream, the input of v is the residual that v reads, and
the gradient is averaged over embeddings between the two prompts (Hanna, Pezzelle, Belinkov 2024;
with one step at the base it is EAP, Syed et al. 2023). Senders are the embedding, heads and MLPs;
receivers the queries, keys and values of heads, MLPs, and the logits.

Shape legend: U senders, V receivers, K steps, S positions, d width, H heads.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pellucid.core.places import HeadKind, HeadSite
from pellucid.core.types import Site
from pellucid.interventions.tracing.contrast import Contrast, Direction
from pellucid.interventions.tracing.gradients import interpolating, point_gradients
from pellucid.interventions.tracing.metrics import Metric
from pellucid.interventions.tracing.paths import (
    LOGITS,
    Path,
    Receiver,
    Sender,
    depth_of,
    follows,
    path_logits,
    path_runs,
    sender_changes,
)
from pellucid.interventions.tracing.screen import (
    IG_STEPS,
    SAMPLE,
    TOP,
    choose,
    missed,
    rank_agreement,
)
from pellucid.models.linear import NormWeights
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeScores:
    """Scores of all edges, and exact effects of some, as shares of the gap between the prompts.

    Attributes:
        senders, receivers: names, in order of depth.
        score: `[senders, receivers]`, signed; NaN where there is no edge.
        exact: measured by path patching; NaN where that was not run.
        top: cells of the best edges by |score|.
        sample: cells drawn at random from the rest.
        agreement: rank correlation of |score| and |exact| over both; None if not defined.
        missed_share: share of the sample that exceeds the median of the top.
        largest_missed: the largest |exact| in the sample; None without one.
        settings: what else identifies the run (JSON-able).
    """

    senders: list[str]
    receivers: list[str]
    score: Float64[np.ndarray, "U V"]
    exact: Float64[np.ndarray, "U V"]
    top: list[tuple[int, int]]
    sample: list[tuple[int, int]]
    agreement: float | None
    missed_share: float | None
    largest_missed: float | None
    settings: dict[str, Any]

    def cell(self, row: int, column: int) -> dict[str, Any]:
        """One edge: scored and exact."""
        return {
            "sender": self.senders[row],
            "receiver": self.receivers[column],
            "score": float(self.score[row, column]),
            "exact": float(self.exact[row, column]),
        }

    def to_json(self) -> dict[str, Any]:
        """The best edges and the check of the screen, JSON-able."""
        return {
            "settings": self.settings,
            "edges": int(np.isfinite(self.score).sum()),
            "verified": {
                "top": [self.cell(*each) for each in self.top],
                "random_rest": [self.cell(*each) for each in self.sample],
                "rank_agreement": self.agreement,
                "missed_share": self.missed_share,
                "largest_missed": self.largest_missed,
            },
        }


def edge_scores(
    model: LanguageModel,
    pair: Contrast,
    *,
    direction: Direction = "noise",
    steps: int = IG_STEPS,
    top: int = TOP,
    sample: int = SAMPLE,
    seed: int = 0,
) -> EdgeScores:
    """Score every edge by EAP-IG and patch the best, and a random sample of the rest, for real.

    Args:
        model: to trace.
        pair: the two prompts.
        direction: `noise` or `denoise`.
        steps: of the integral.
        top: how many of the best edges are patched.
        sample: how many of the rest.
        seed: of the sample.

    Raises:
        ConfigError: another direction.
        SiteError: the model's family is not known.
    """
    senders, receivers = _senders(model), receivers_of(model)
    runs = path_runs(model, pair, direction, senders)
    changes = sender_changes(runs, [Path(sender, ()) for sender in senders])
    between = interpolating(model, runs.base.residuals[0], runs.source.residuals[0], steps)
    reads = input_gradients(model, pair.metric, runs.base.ids, receivers, between, steps)
    gap = pair.corrupt_value - pair.clean_value
    gap = gap if direction == "noise" else -gap
    score = (torch.einsum("usd,vsd->uv", changes, reads) / gap).double().cpu().numpy()
    exists = np.array([[follows(model, u, v) for v in receivers] for u in senders])
    score[~exists] = np.nan
    cells, drawn = choose(np.abs(np.nan_to_num(score)), exists, top, sample, seed)
    chosen = [*cells, *drawn]
    paths = [Path(senders[u], (receivers[v],)) for u, v in chosen]
    patched = path_logits(runs, paths, changes[[u for u, _ in chosen]])
    exact = np.full(score.shape, np.nan)
    effects = pair.effects(patched.logits, direction).double().cpu().numpy()
    for cell, effect in zip(chosen, effects, strict=True):
        exact[cell] = effect
    wanted = np.isfinite(exact)
    share, largest = missed(exact, cells, drawn)
    return EdgeScores(
        senders=[str(each) for each in senders],
        receivers=[str(each) for each in receivers],
        score=score,
        exact=exact,
        top=cells,
        sample=drawn,
        agreement=rank_agreement(np.abs(score[wanted]), np.abs(exact[wanted])),
        missed_share=share,
        largest_missed=largest,
        settings={
            "method": "eap-ig",
            "direction": direction,
            "metric": pair.metric_name,
            "steps": steps,
            "clean_value": pair.clean_value,
            "corrupt_value": pair.corrupt_value,
            "seed": seed,
        },
    )


def _senders(model: LanguageModel) -> list[Sender]:
    found: list[Sender] = [Site("embed")]
    for layer in range(model.n_layers):
        heads = range(model.block(layer).attention.n_heads)
        found += [HeadSite("z", layer, head) for head in heads]
        found.append(Site("mlp_out", layer))
    return found


def receivers_of(model: LanguageModel) -> list[Receiver]:
    """Queries, keys and values of every head, every MLP, and the logits, in order of depth."""
    found: list[Receiver] = []
    for layer in range(model.n_layers):
        attention = model.block(layer).attention
        counts: dict[HeadKind, int] = {
            "q": attention.n_heads,
            "k": attention.n_kv_heads,
            "v": attention.n_kv_heads,
        }
        found += [HeadSite(kind, layer, head) for kind, n in counts.items() for head in range(n)]
        found.append(Site("mlp_in", layer))
    return sorted([*found, LOGITS], key=depth_of)


def input_gradients(
    model: LanguageModel,
    metric: Metric,
    ids: Int[Tensor, " S"],
    receivers: list[Receiver],
    between: list[tuple[TapPoint, TapFunction]],
    steps: int,
) -> Float[Tensor, "V S d"]:
    """The gradient of the metric at the residual that each receiver reads, for it alone.

    Args:
        model: to run.
        metric: of the logits at the last position.
        ids: the prompt.
        receivers: that read.
        between: what makes the rows differ, as `interpolating` does.
        steps: how many rows; the gradient is the mean over them.
    """
    kept: dict[TapPoint, Tensor] = {}

    def keep(point: TapPoint) -> tuple[TapPoint, TapFunction]:
        def read(value: Tensor, _: TapCall) -> None:
            kept[point] = value.detach()

        return point, read

    final = model.point(Site("resid_post", model.n_layers - 1))
    points = {receiver: _read_point(model, receiver, final) for receiver in receivers}
    residuals = {_residual_point(model, each) for each in receivers if each != LOGITS}
    readers = [keep(point) for point in residuals]
    gradients = point_gradients(
        model, ids, list(points.values()), metric, rows=steps, before=[*between, *readers]
    )
    found = []
    for receiver in receivers:
        g_KSw = gradients[points[receiver]]
        if receiver != LOGITS:
            x_KSd = kept[_residual_point(model, receiver)]
            g_KSw = _to_residual(model, receiver, g_KSw, x_KSd)
        found.append(g_KSw.mean(0))
    return torch.stack(found)


def _read_point(model: LanguageModel, receiver: Receiver, final: TapPoint) -> TapPoint:
    if receiver == LOGITS:
        return final
    return (
        model.head_point(receiver)[0] if isinstance(receiver, HeadSite) else model.point(receiver)
    )


def _residual_point(model: LanguageModel, receiver: Sender) -> TapPoint:
    assert model.spec is not None
    attention = isinstance(receiver, HeadSite) or model.spec.parallel
    return model.point(Site("resid_pre" if attention else "resid_mid", receiver.layer))


def _to_residual(
    model: LanguageModel,
    receiver: Sender,
    gradient: Float[Tensor, "K S w"],
    residual: Float[Tensor, "K S d"],
) -> Float[Tensor, "K S d"]:
    """A gradient at a receiver's own input, pulled back to the residual before the norm."""
    block = model.block(receiver.layer)
    if not isinstance(receiver, HeadSite):
        return pull_norm(block.mlp_norm, residual, gradient)
    weights = model.query_key(receiver.layer)
    columns = model.head_point(receiver)[1].to(gradient.device)
    assert receiver.head is not None
    if receiver.kind == "v":
        heads = block.attention.w_v.unflatten(1, (block.attention.n_kv_heads, -1))
        weight = heads[:, receiver.head]
    else:
        side = weights.query if receiver.kind == "q" else weights.key
        weight = side.head(receiver.head)[0]
    return pull_norm(block.attn_norm, residual, gradient[..., columns] @ weight.T)


def pull_norm(
    norm: NormWeights | None, x: Float[Tensor, "*N d"], gradient: Float[Tensor, "*N d"]
) -> Float[Tensor, "*N d"]:
    """The gradient at a norm's input from that at its output: the norm's whole Jacobian.

    For y = c(x) s(x) gain + b with s one over the root mean square of c(x):
    dx = s (c(g) - u mean(g u)), where g = gradient * gain and u = c(x) s.
    """
    if norm is None:
        return gradient
    scale = norm.scale(x)
    unit, g = norm.centre(x) * scale, gradient * norm.gain
    return scale * (norm.centre(g) - unit * (g * unit).mean(-1, keepdim=True))
