"""First-order predictions, with step by step more of the model allowed to answer.

An attribution graph holds three things fixed that the real model does not: norm scales, the MLPs'
own nonlinear answer, and attention patterns. Each derivative here lets one more of them answer, so
that where a graph's predictions are lost can be told. They are predictions: the derivative at the
unchanged run, times the change; nothing is measured with the change in place.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.attribution.measure import Deltas, Probes, Reader
from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.freeze import Taps, attention_taps, norm_taps
from pellucid.replacement.local import LocalReplacement

Answer = Literal["features", "norms", "mlps", "attention"]
"""What answers a change, each beside those before it. `features`: the active features and skip
paths, linearly, as on a whole graph's paths; `norms`: norm scales too; `mlps`: the real MLPs in the
features' place; `attention`: the patterns too, which leaves nothing frozen."""

ANSWERS: tuple[Answer, ...] = get_args(Answer)


def first_order_effects(
    local: LocalReplacement, deltas: Deltas, probes: Probes, answer: Answer
) -> Float[Tensor, "B P"]:
    """The effect of each run on every probe as the derivative predicts it."""
    gradient_PLSd = _gradients(local, probes, answer)
    at_PNd = gradient_PLSd[:, deltas.layers, deltas.positions]
    each_PN = (at_PNd * deltas.vectors.to(at_PNd.dtype)).sum(dim=-1)
    return each_PN.new_zeros(deltas.n_runs, len(probes)).index_add(0, deltas.runs, each_PN.T)


@torch.enable_grad()
def _gradients(local: LocalReplacement, probes: Probes, answer: Answer) -> Float[Tensor, "P L S d"]:
    """Derivative of every probe by every MLP output: one forward pass, one backward a probe."""
    model, run = local.run.model, local.run
    layers = range(len(local.layers))
    added = [torch.zeros_like(frozen.mlp_out).requires_grad_() for frozen in run.layers]

    def adder(layer: int) -> TapFunction:
        return lambda value, _call: value + added[layer]

    taps: Taps = [] if answer == "attention" else attention_taps(run)
    if answer == "features":
        taps += norm_taps(run)
    if answer in ("features", "norms"):
        for layer in layers:
            taps += _linear_features(local, layer)
    taps += [(Site("mlp_out", layer), adder(layer)) for layer in layers]
    reader = Reader(local, probes)
    with model.tapped(taps + reader.taps):
        model.logits(run.ids[None])
    rows = []
    for reading in reader.readings()[0].unbind():
        parts = torch.autograd.grad(
            reading, added, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.stack(parts))
    return torch.stack(rows).detach()


def _linear_features(local: LocalReplacement, layer: int) -> list[tuple[Site, TapFunction]]:
    """Taps that let a layer's active features, and its skip path, answer linearly in its place."""
    frozen, own = local.run.layers[layer], local.layers[layer]
    dictionary = local.dictionaries[layer]
    dtype = frozen.mlp_out.dtype
    encoder = dictionary.encoder_rows(own.features).to(dtype)
    decoder = dictionary.decoder_rows(own.features).to(dtype)
    read: list[Tensor] = []

    def remember(value: Tensor, _call: TapCall) -> None:
        read.append(value)

    def answer(_value: Tensor, _call: TapCall) -> Tensor:
        change_Sd = (read.pop() - frozen.mlp_in)[0]
        change_n1 = (change_Sd[own.positions] * encoder).sum(dim=1, keepdim=True)
        written_Sd = frozen.mlp_out.index_add(0, own.positions, change_n1 * decoder)
        skipped_Sd = dictionary.skip(change_Sd)
        if skipped_Sd is not None:
            written_Sd = written_Sd + skipped_Sd.to(dtype).masked_fill(own.anchored[:, None], 0.0)
        return written_Sd[None]

    return [(Site("mlp_in", layer), remember), (Site("mlp_out", layer), answer)]
