"""What changes to the residual stream do to logits and features, with more or less frozen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.checks.probes import LogitProbe, Probe, Reader
from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.freeze import Taps, attention_taps, norm_taps
from pellucid.replacement.local import LocalReplacement

Freedom = Literal["frozen", "attention_frozen", "real"]
"""`frozen`: attention patterns, norm scales and MLP outputs stay (linear paths through MLPs
answer); `attention_frozen`: only the patterns stay; `real`: nothing does."""

ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """Interventions: each run adds one or several vectors to the model's residual stream.

    Attributes:
        sites: where each of n vectors is added.
        positions: the position where it is added.
        vectors: what is added.
        runs: the run each belongs to, from 0, ascending.
    """

    sites: tuple[Site, ...]
    positions: Int[Tensor, " n"]
    vectors: Float[Tensor, "n d"]
    runs: Int[Tensor, " n"]

    @property
    def n_runs(self) -> int:
        """How many interventions there are."""
        return int(self.runs[-1]) + 1 if len(self.runs) else 0

    def at(self, site: Site) -> Int[Tensor, " m"]:
        """Which of the vectors are added at a site."""
        own = [n for n, each in enumerate(self.sites) if each == site]
        return torch.tensor(own, device=self.positions.device)

    def part(self, start: int, stop: int) -> "Deltas":
        """The interventions of a range of runs."""
        chosen = ((self.runs >= start) & (self.runs < stop)).nonzero().squeeze(1)
        return Deltas(
            sites=tuple(self.sites[n] for n in chosen.tolist()),
            positions=self.positions[chosen],
            vectors=self.vectors[chosen],
            runs=self.runs[chosen] - start,
        )

    def scaled(self, factor: float) -> "Deltas":
        """The same interventions, `factor` times as large."""
        return self.replaced(self.vectors * factor)

    def replaced(self, vectors: Float[Tensor, "n d"]) -> "Deltas":
        """The same interventions with other vectors."""
        return Deltas(sites=self.sites, positions=self.positions, vectors=vectors, runs=self.runs)


def measured_effects(
    local: LocalReplacement, deltas: Deltas, tokens: Int[Tensor, " T"], freedom: Freedom
) -> Float[Tensor, "B T"]:
    """Change of each token's logit less the mean logit, at the last position, in each run."""
    probes = [LogitProbe(token) for token in tokens.tolist()]
    return probed_effects(local, deltas, probes, freedom)


@torch.no_grad()
def probed_effects(
    local: LocalReplacement, deltas: Deltas, probes: Sequence[Probe], freedom: Freedom
) -> Float[Tensor, "B P"]:
    """Change of the reading at every probe in each run; all probes are read in the same forwards.

    The real modules of the model run; the changes enter, and the freezing happens, through taps.
    """
    reference = _readings(local, deltas.part(0, 1).scaled(0.0), probes, freedom)
    parts = [
        _readings(local, deltas.part(start, start + ROWS_AT_ONCE), probes, freedom)
        for start in range(0, deltas.n_runs, ROWS_AT_ONCE)
    ]
    return torch.cat(parts) - reference


def _readings(
    local: LocalReplacement, deltas: Deltas, probes: Sequence[Probe], freedom: Freedom
) -> Float[Tensor, "B P"]:
    run, model = local.run, local.run.model
    taps: Taps = []
    if freedom == "frozen":
        taps += frozen_taps(local)
    elif freedom == "attention_frozen":
        taps += attention_taps(run)
    reader = Reader(local, probes)
    with model.tapped(reader.site_taps + taps + _delta_taps(deltas) + reader.logit_taps):
        model.logits(run.ids.expand(deltas.n_runs, -1))
    return reader.readings()


def _delta_taps(deltas: Deltas) -> Taps:
    taps: Taps = []
    for site in sorted(set(deltas.sites)):
        own = deltas.at(site)

        def add(value: Tensor, _call: TapCall, own: Tensor = own) -> Tensor:
            place = (deltas.runs[own], deltas.positions[own])
            vectors = deltas.vectors[own].to(value.dtype)
            return value.index_put(place, vectors, accumulate=True)

        taps.append((site, add))
    return taps


def frozen_taps(local: LocalReplacement) -> Taps:
    """Taps for the full freeze: patterns, scales, MLP outputs but for their linear paths, and the
    residual where an SAE explains it."""
    taps = attention_taps(local.run) + norm_taps(local.run)
    for number, layer in enumerate(local.layers):
        taps += _mlp_tap_pair(local, number)
        if layer.cuts:
            taps.append((layer.write_site, _held(local.run.residual(layer.write_site))))
    return taps


def _held(recorded: Tensor) -> TapFunction:
    return lambda value, _call: recorded.expand_as(value)


def _mlp_tap_pair(local: LocalReplacement, layer: int) -> list[tuple[Site, TapFunction]]:
    frozen, path = local.run.layers[layer], local.layers[layer].path
    read: list[Tensor] = []

    def remember(value: Tensor, _call: TapCall) -> None:
        read.append(value)

    def hold(value: Tensor, _call: TapCall) -> Tensor:
        change = read.pop() - frozen.mlp_in
        if path is None:
            return frozen.mlp_out.expand_as(value)
        return frozen.mlp_out + path.apply(change)

    return [(Site("mlp_in", layer), remember), (Site("mlp_out", layer), hold)]
