"""Agreement of predictions with interventions by depth, and by what the prediction lets answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.attribution.checks.agreement import agreement
from pellucid.attribution.checks.derivatives import ANSWERS
from pellucid.attribution.checks.interventions import BANDS, FEWEST_SOURCES, bands
from pellucid.graphs.graph import AttributionGraph

ReadoutKind = Literal["logit", "contrast", "features"]
SMALLEST_EFFECT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """All effects of F intervened features at one place, predicted and measured.

    Attributes:
        kind: what the graph explains (a token's logit less the mean logit), that logit less the
            likeliest other one, or a feature's pre-activation.
        layer: where it is read; the number of layers for logits.
        node: its node in the graph; None for the contrast.
        value: the place's own value, by which effects are divided when places are pooled.
        reaches: which features lie before it.
        direct: the graph's edges; None where the graph has no such target.
        total: the graph's path sums, for a change by +1 times the feature's activation.
        first_order: what the derivatives of `ANSWERS` predict for the same change.
        measured: under `frozen`, `attention_frozen`, `real` and `random` (the control, in the real
            model), for every factor.
    """

    kind: ReadoutKind
    layer: int
    node: int | None
    value: float
    reaches: Bool[np.ndarray, " F"]
    direct: Float64[np.ndarray, " F"] | None
    total: Float64[np.ndarray, " F"]
    first_order: dict[str, Float64[np.ndarray, " F"]]
    measured: dict[str, Float64[np.ndarray, "factors F"]]

    def row(self, factor: int, feature: int, change: float) -> dict[str, float]:
        """The effects of one intervention, predicted and measured, in the place's own units."""
        record = {
            "predicted_total": change * float(self.total[feature]),
            "predicted_norms": change * float(self.first_order["norms"][feature]),
            "frozen": float(self.measured["frozen"][factor, feature]),
            "attention_frozen": float(self.measured["attention_frozen"][factor, feature]),
            "real": float(self.measured["real"][factor, feature]),
            "random_real": float(self.measured["random"][factor, feature]),
        }
        if self.direct is not None:
            record["predicted_direct"] = change * float(self.direct[feature])
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Every readout of the interventions on F features of a graph.

    `change` is each factor less one; `top` tells the features of most influence from those added
    for depth's sake.
    """

    graph: AttributionGraph
    sources: Int64[np.ndarray, " F"]
    top: Bool[np.ndarray, " F"]
    change: Float64[np.ndarray, " factors"]
    readouts: tuple[Readout, ...]

    def frozen_max_error(self) -> float:
        """Largest gap between edges and effects on all that is explained, over the largest effect.

        Of the top features, under the full freeze.
        """
        ends = self.of_kind("logit")
        frozen = np.stack([end.measured["frozen"][:, self.top] for end in ends])
        edges = np.stack(
            [self.change[:, None] * end.direct[self.top] for end in ends if end.direct is not None]
        )
        return float(np.abs(frozen - edges).max()) / max(float(np.abs(frozen).max()), 1e-12)

    def read(self) -> list[Readout]:
        """The readouts that figures are about: of all that is explained only the first."""
        return [self.readouts[0], *(r for r in self.readouts[1:] if r.kind != "logit")]

    def of_kind(self, kind: ReadoutKind) -> list[Readout]:
        """The readouts of one kind."""
        return [readout for readout in self.readouts if readout.kind == kind]


def depth_records(effects: Effects, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Agreement for every place read and every third of the model intervened in.

    Effects on the features of a layer are divided by their pre-activations and pooled. Places and
    thirds with fewer than three features that reach them are left out.
    """
    band = bands(effects.graph, effects.sources)
    records = []
    for kind, layer in sorted(
        {(readout.kind, readout.layer) for readout in effects.read()},
        key=lambda place: (place[1], place[0] != "logit"),
    ):
        places = [r for r in effects.read() if (r.kind, r.layer) == (kind, layer)]
        for number, name in enumerate(("all", *BANDS)):
            chosen = np.ones(len(band), bool) if number == 0 else band == number - 1
            pool = _Pool(effects, places, chosen)
            if pool.n_sources < FEWEST_SOURCES:
                continue
            records.append(
                {
                    "target": kind,
                    "layer": layer,
                    "source_depth": name,
                    "features": pool.n_sources,
                    "n": pool.n,
                    "frozen_max_error": pool.frozen_error(),
                }
                | pool.agreement("attention_frozen", "total", "attention_frozen", rng)
                | pool.agreement("real", "total", "real", rng)
                | pool.agreement("random", "total", "random", rng)
                | pool.agreement("norms", "norms", "real", rng)
                | pool.agreement("norms_random", "norms", "random", rng)
            )
    return records


def answer_records(effects: Effects, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Agreement with the real model when step by step more may answer in the prediction.

    `size_ratio` is the median measured effect over the median predicted one, without signs: below
    1 the prediction is too large. Logit and contrast are those of the top features alone.
    """
    records = []
    for kind in get_args(ReadoutKind):
        chosen = np.ones(len(effects.sources), bool) if kind == "features" else effects.top
        pool = _Pool(effects, [r for r in effects.read() if r.kind == kind], chosen)
        if pool.n_sources < FEWEST_SOURCES:
            continue
        for answer in ANSWERS:
            records.append(
                {"target": kind, "answer": answer, "features": pool.n_sources, "n": pool.n}
                | pool.agreement("real", answer, "real", rng)
                | pool.agreement("random", answer, "random", rng)
                | {"size_ratio": pool.size_ratio(answer, "real")}
            )
    return records


def downstream_rows(effects: Effects) -> list[dict[str, Any]]:
    """One row for every intervention and feature read, effects in its pre-activation's units."""
    nodes = effects.graph.nodes
    rows = []
    for readout in effects.of_kind("features"):
        target = {"layer": readout.layer, "position": int(nodes.position[readout.node])}
        target["feature"] = int(nodes.index[readout.node])
        for i, change in enumerate(effects.change.tolist()):
            for j in np.flatnonzero(readout.reaches).tolist():
                node = effects.sources[j]
                row = {
                    "layer": int(nodes.layer[node]),
                    "position": int(nodes.position[node]),
                    "feature": int(nodes.index[node]),
                    "factor": change + 1.0,
                    "target": target,
                    "value": readout.value,
                }
                rows.append(row | readout.row(i, j, change))
    return rows


class _Pool:
    """The effects of some features on some places, per unit of change, each place in its units."""

    def __init__(
        self, effects: Effects, places: Sequence[Readout], chosen: Bool[np.ndarray, " F"]
    ) -> None:
        self._places, self._change = places, effects.change[:, None]
        self._masks = [place.reaches & chosen for place in places]
        owners = [np.flatnonzero(mask) for mask in self._masks]
        self._units = [np.broadcast_to(own, (len(effects.change), len(own))) for own in owners]
        self.n = sum(units.size for units in self._units)
        self.n_sources = len(np.unique(np.concatenate(owners))) if owners else 0

    def predicted(self, what: str) -> np.ndarray:
        """Path sums ("total") or a derivative's prediction, once for every factor."""
        parts = []
        for place, mask, units in zip(self._places, self._masks, self._units, strict=True):
            values = place.total if what == "total" else place.first_order[what]
            parts.append(np.broadcast_to(values[mask] / place.value, units.shape).ravel())
        return np.concatenate(parts)

    def measured(self, freedom: str) -> np.ndarray:
        """What was measured, divided by the change."""
        return np.concatenate(
            [
                (place.measured[freedom][:, mask] / self._change / place.value).ravel()
                for place, mask in zip(self._places, self._masks, strict=True)
            ]
        )

    def agreement(
        self, name: str, predicted: str, measured: str, rng: np.random.Generator
    ) -> dict[str, Any]:
        """See `agreement.agreement`."""
        units = np.concatenate([part.ravel() for part in self._units])
        return agreement(name, self.predicted(predicted), self.measured(measured), units, rng=rng)

    def frozen_error(self) -> float | None:
        """Largest gap between edges and effects under the full freeze, over the largest effect.

        Over `SMALLEST_EFFECT` of the place's value where no effect is as large: an SAE cuts paths,
        and rounding is all that is left of them.
        """
        gap, size = 0.0, 0.0
        for place, mask in zip(self._places, self._masks, strict=True):
            if place.direct is None:
                return None
            frozen = place.measured["frozen"][:, mask] / place.value
            edges = self._change * place.direct[mask] / place.value
            gap = max(gap, float(np.abs(frozen - edges).max()))
            size = max(size, float(np.abs(frozen).max()))
        return gap / max(size, SMALLEST_EFFECT)

    def size_ratio(self, predicted: str, measured: str) -> float | None:
        """Median size of the measured effects over that of the predicted ones."""
        reference = float(np.median(np.abs(self.predicted(predicted))))
        size = float(np.median(np.abs(self.measured(measured))))
        return size / reference if reference > 0 else None
