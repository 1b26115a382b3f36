"""What a change to MLP outputs does to the logits, with more or less of the model frozen."""

from dataclasses import dataclass
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
    """B independent changes, each a vector added to `mlp_out` of one layer at one position."""

    layers: Int[Tensor, " B"]
    positions: Int[Tensor, " B"]
    vectors: Float[Tensor, "B d"]

    def rows(self, start: int, stop: int) -> "Deltas":
        """A range of the changes."""
        return Deltas(
            layers=self.layers[start:stop],
            positions=self.positions[start:stop],
            vectors=self.vectors[start:stop],
        )


@torch.no_grad()
def measured_effects(
    local: LocalReplacement, deltas: Deltas, tokens: Int[Tensor, " T"], freedom: Freedom
) -> Float[Tensor, "B T"]:
    """Change of each token's logit less the mean logit, at the last position, under each change.

    The real modules of the model run; the changes enter, and the freezing happens, through taps.
    Logits are the unembedding's own, before any softcap.
    """
    untouched = Deltas(
        layers=deltas.layers.new_zeros(1),
        positions=deltas.positions.new_zeros(1),
        vectors=deltas.vectors.new_zeros(1, deltas.vectors.shape[1]),
    )
    reference = _centred_logits(local, untouched, tokens, freedom)
    parts = [
        _centred_logits(local, deltas.rows(start, start + ROWS_AT_ONCE), tokens, freedom)
        for start in range(0, len(deltas.layers), ROWS_AT_ONCE)
    ]
    return torch.cat(parts) - reference


def _centred_logits(
    local: LocalReplacement, deltas: Deltas, tokens: Int[Tensor, " T"], freedom: Freedom
) -> Float[Tensor, "B T"]:
    run, model = local.run, local.run.model
    captured: list[Tensor] = []

    def capture(value: Tensor, _call: TapCall) -> None:
        captured.append(value[:, -1])

    taps: Taps = []
    if freedom == "frozen":
        taps += frozen_taps(local)
    elif freedom == "attention_frozen":
        taps += attention_taps(run)
    taps += _delta_taps(deltas)
    taps.append((model.unembedding_point(), capture))
    with model.tapped(taps):
        model.logits(run.ids.expand(len(deltas.layers), -1))
    logits = captured[0]
    return logits[:, tokens] - logits.mean(dim=1, keepdim=True)


def _delta_taps(deltas: Deltas) -> Taps:
    taps: Taps = []
    for layer in deltas.layers.unique().tolist():
        rows = (deltas.layers == layer).nonzero().squeeze(1)

        def add(value: Tensor, _call: TapCall, rows: Tensor = rows) -> Tensor:
            changed = value.clone()
            changed[rows, deltas.positions[rows]] += deltas.vectors[rows].to(value.dtype)
            return changed

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
