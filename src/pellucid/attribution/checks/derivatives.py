"""First-order predictions, with step by step more of the model allowed to answer.

An attribution graph holds three things fixed that the real model does not: norm scales, the MLPs'
own nonlinear answer, and attention patterns. Each derivative here lets one more of them answer, so
that where a graph's predictions are lost can be told. They are predictions: the derivative at the
unchanged run, times the change; nothing is measured with the change in place.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.attribution.checks.measure import Deltas
from pellucid.attribution.checks.probes import Probe, Reader
from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.freeze import Taps, attention_taps, norm_taps
from pellucid.replacement.local import LocalReplacement

Answer = Literal["features", "norms", "mlps", "attention"]
"""What answers a change, each beside those before it. `features`: the active features and linear
paths, as on a whole graph's paths; `norms`: norm scales too; `mlps`: the real MLPs (and residuals)
in the features' place; `attention`: the patterns too, which leaves nothing frozen."""

ANSWERS: tuple[Answer, ...] = get_args(Answer)


def first_order_effects(
    local: LocalReplacement, deltas: Deltas, probes: Sequence[Probe], answer: Answer
) -> Float[Tensor, "B P"]:
    """The effect of each run on every probe as the derivative predicts it."""
    sites = sorted(set(deltas.sites))
    gradient_PKSd = _gradients(local, sites, probes, answer)
    number = torch.tensor([sites.index(s) for s in deltas.sites], device=deltas.runs.device)
    at_PNd = gradient_PKSd[:, number, deltas.positions]
    each_PN = (at_PNd * deltas.vectors.to(at_PNd.dtype)).sum(dim=-1)
    return each_PN.new_zeros(deltas.n_runs, len(probes)).index_add(0, deltas.runs, each_PN.T)


@torch.enable_grad()
def _gradients(
    local: LocalReplacement, sites: Sequence[Site], probes: Sequence[Probe], answer: Answer
) -> Float[Tensor, "P K S d"]:
    """Derivative of every probe by K sites' values: one forward pass, one backward a probe."""
    model, run = local.run.model, local.run
    added = [torch.zeros_like(run.embed).requires_grad_() for _ in sites]

    def adder(number: int) -> TapFunction:
        return lambda value, _call: value + added[number]

    taps: Taps = [] if answer == "attention" else attention_taps(run)
    if answer == "features":
        taps += norm_taps(run)
    if answer in ("features", "norms"):
        taps += linear_taps(local)
    taps += [(site, adder(number)) for number, site in enumerate(sites)]
    reader = Reader(local, probes)
    with model.tapped(reader.site_taps + taps + reader.logit_taps):
        model.logits(run.ids[None])
    rows = []
    for reading in reader.readings()[0].unbind():
        parts = torch.autograd.grad(
            reading, added, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.stack(parts))
    return torch.stack(rows).detach()


def linear_taps(local: LocalReplacement) -> Taps:
    """Taps that let active features and linear paths answer in the place of MLPs and residuals.

    For a batch of one run: each place is what was recorded, plus the answer to what has changed.
    """
    answers = _Answers(local)
    taps: Taps = []
    for number, layer in enumerate(local.layers):
        site = layer.read_site
        taps.append((Site("mlp_in", number), answers.remember(number)))
        if not layer.cuts and site.kind != "mlp_in":
            taps.append((site, answers.remember_residual(number)))
        taps.append((Site("mlp_out", number), answers.mlp(number)))
        if layer.cuts:
            taps.append((layer.write_site, answers.residual(number)))
    return taps


class _Answers:
    """The functions of `linear_taps`: what each layer read, and what its features answered."""

    def __init__(self, local: LocalReplacement) -> None:
        self._local = local
        self._read: dict[int, Tensor] = {}
        self._answered: dict[int, Tensor] = {}

    def remember(self, layer: int) -> TapFunction:
        """Keep the change of an MLP's input, and let its features answer if they read it."""
        recorded = self._local.run.layers[layer].mlp_in

        def tap(value: Tensor, _call: TapCall) -> None:
            self._read[layer] = value[0] - recorded
            if self._local.layers[layer].read_site.kind == "mlp_in":
                self._answer(layer, self._read[layer])

        return tap

    def remember_residual(self, layer: int) -> TapFunction:
        """Let the features answer that read the residual and write the MLP's output."""
        recorded = self._local.run.residual(self._local.layers[layer].read_site)

        def tap(value: Tensor, _call: TapCall) -> None:
            self._answer(layer, value[0] - recorded)

        return tap

    def mlp(self, layer: int) -> TapFunction:
        """The MLP's output: as recorded, plus its linear path, plus what features write here."""
        own, recorded = self._local.layers[layer], self._local.run.layers[layer].mlp_out

        def tap(value: Tensor, _call: TapCall) -> Tensor:
            written = recorded
            if own.path is not None:
                written = written + own.path.apply(self._read[layer])
            for lower in range(layer + 1):
                slots = self._local.slots(lower)
                for slot, site in slots.items():
                    if site == Site("mlp_out", layer):
                        written = self._written(written, lower, slot)
            return written[None].to(value.dtype)

        return tap

    def residual(self, layer: int) -> TapFunction:
        """The residual that an SAE explains: as recorded, plus what its features answer."""
        recorded = self._local.run.residual(self._local.layers[layer].write_site)

        def tap(value: Tensor, _call: TapCall) -> Tensor:
            self._answer(layer, value[0] - recorded)
            return self._written(recorded, layer, 0)[None].to(value.dtype)

        return tap

    def _answer(self, layer: int, change_Sd: Tensor) -> None:
        active = self._local.layers[layer].active
        vectors, _ = active.read(torch.arange(len(active), device=active.positions.device))
        self._answered[layer] = (change_Sd[active.positions] * vectors).sum(dim=1, keepdim=True)

    def _written(self, onto_Sd: Tensor, layer: int, slot: int) -> Tensor:
        active = self._local.layers[layer].active
        share_n1 = self._answered[layer] / active.activations[:, None]
        return onto_Sd.index_add(0, active.positions, share_n1 * active.written(slot))
