"""What changes to MLP outputs do to logits and features, with more or less of the model frozen."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import Site
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.freeze import Taps, attention_taps, norm_taps
from pellucid.replacement.local import LocalReplacement

Freedom = Literal["frozen", "attention_frozen", "real"]
"""`frozen`: attention patterns, norm scales and MLP outputs stay (a skip path answers linearly);
`attention_frozen`: only the patterns stay; `real`: nothing does."""

ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """Interventions: each run adds one or several vectors to `mlp_out` of the model.

    Attributes:
        layers: where each of n vectors is added.
        positions: the position where it is added.
        vectors: what is added.
        runs: the run each belongs to, from 0, ascending; by default every vector has its own.
    """

    layers: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    vectors: Float[Tensor, "n d"]
    runs: Int[Tensor, " n"] = None  # type: ignore[assignment]  # see __post_init__

    def __post_init__(self) -> None:
        if self.runs is None:
            object.__setattr__(self, "runs", torch.arange(len(self.layers)))

    @property
    def n_runs(self) -> int:
        """How many interventions there are."""
        return int(self.runs[-1]) + 1 if len(self.runs) else 0

    def part(self, start: int, stop: int) -> "Deltas":
        """The interventions of a range of runs."""
        chosen = (self.runs >= start) & (self.runs < stop)
        return Deltas(
            layers=self.layers[chosen],
            positions=self.positions[chosen],
            vectors=self.vectors[chosen],
            runs=self.runs[chosen] - start,
        )

    def scaled(self, factor: float) -> "Deltas":
        """The same interventions, `factor` times as large."""
        return Deltas(
            layers=self.layers,
            positions=self.positions,
            vectors=self.vectors * factor,
            runs=self.runs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Where effects are read: logits of the last position, and features' pre-activations.

    Attributes:
        tokens: T vocabulary ids; each is read as its logit less the mean logit.
        sites: what each of F features reads.
        positions: where it reads.
        directions: its encoder row, so that a reading is its pre-activation up to a constant.
    """

    tokens: Int[Tensor, " T"]
    sites: tuple[Site, ...] = ()
    positions: Int[Tensor, " F"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    directions: Float[Tensor, "F d"] = field(default_factory=lambda: torch.zeros(0, 0))

    def __len__(self) -> int:
        return len(self.tokens) + len(self.sites)


class Reader:
    """Taps that keep what the probes read in one forward pass, and the readings of that pass."""

    def __init__(self, local: LocalReplacement, probes: Probes) -> None:
        self._probes, self._kept = probes, dict[str, Tensor]()

        def keeper(name: str) -> TapFunction:
            def keep(value: Tensor, _call: TapCall) -> None:
                self._kept[name] = value

            return keep

        sites = sorted(set(probes.sites), key=str)
        self.taps: Taps = [(site, keeper(str(site))) for site in sites]
        self.taps.append((local.run.model.unembedding_point(), keeper("logits")))

    def readings(self) -> Float[Tensor, "B P"]:
        """The value at every probe, tokens first."""
        probes = self._probes
        logits = self._kept["logits"][:, -1]
        columns = [logits[:, probes.tokens] - logits.mean(dim=1, keepdim=True)]
        for site, position, direction in zip(
            probes.sites, probes.positions.tolist(), probes.directions, strict=True
        ):
            read = self._kept[str(site)][:, position]
            columns.append((read @ direction.to(read.dtype))[:, None])
        return torch.cat(columns, dim=1)


def measured_effects(
    local: LocalReplacement, deltas: Deltas, tokens: Int[Tensor, " T"], freedom: Freedom
) -> Float[Tensor, "B T"]:
    """Change of each token's logit less the mean logit, at the last position, in each run."""
    return probed_effects(local, deltas, Probes(tokens=tokens), freedom)


@torch.no_grad()
def probed_effects(
    local: LocalReplacement, deltas: Deltas, probes: Probes, freedom: Freedom
) -> Float[Tensor, "B P"]:
    """Change of the reading at every probe in each run; all probes are read in the same forwards.

    The real modules of the model run; the changes enter, and the freezing happens, through taps.
    Logits are the unembedding's own, before any softcap.
    """
    reference = _readings(local, deltas.part(0, 1).scaled(0.0), probes, freedom)
    parts = [
        _readings(local, deltas.part(start, start + ROWS_AT_ONCE), probes, freedom)
        for start in range(0, deltas.n_runs, ROWS_AT_ONCE)
    ]
    return torch.cat(parts) - reference


def _readings(
    local: LocalReplacement, deltas: Deltas, probes: Probes, freedom: Freedom
) -> Float[Tensor, "B P"]:
    run, model = local.run, local.run.model
    taps: Taps = []
    if freedom == "frozen":
        taps += frozen_taps(local)
    elif freedom == "attention_frozen":
        taps += attention_taps(run)
    reader = Reader(local, probes)
    with model.tapped(taps + _delta_taps(deltas) + reader.taps):
        model.logits(run.ids.expand(deltas.n_runs, -1))
    return reader.readings()


def _delta_taps(deltas: Deltas) -> Taps:
    taps: Taps = []
    for layer in deltas.layers.unique().tolist():
        own = (deltas.layers == layer).nonzero().squeeze(1)

        def add(value: Tensor, _call: TapCall, own: Tensor = own) -> Tensor:
            place = (deltas.runs[own], deltas.positions[own])
            vectors = deltas.vectors[own].to(value.dtype)
            return value.index_put(place, vectors, accumulate=True)

        taps.append((Site("mlp_out", layer), add))
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
