"""Which parts of a step's computation are accused of its answer.

Three kinds of suspects, ranked together:

    feature   a feature at a position: its activation can be scaled
    error     what a layer's dictionary leaves out at a position: it can be taken away, so that the
              MLP there gives what its dictionary says
    layer     all errors of a layer, at every position of the graph

An error is no feature. A layer that was tampered with, or that does what its dictionary never
learned, shows in its errors and in nothing else; to accuse it says where the fault is, not what.

A suspect's score is the product of its signed effect on the answer's logit (over all paths of the
graph; only what speaks for the answer can be accused), of how unusual it is among right steps of
the same kind, and of how important the verifier holds it (see `importance`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import ERROR, FEATURE
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.repair.usual import Usual
from pellucid.verification.steps.place import StepPlace

SuspectKind = Literal["feature", "error", "layer"]
LARGEST = 20.0
"""Unusualness is cut here: beyond it nothing becomes more suspicious."""
_LEAST_SPREAD = 0.01
_LEAST_EFFECT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A part of the computation before a step's answer.

    Attributes:
        kind: what it is; see the module.
        layer: of it.
        index: of the feature, None for errors.
        positions: where, ascending.
        tokens: there, at most three shown.
        effect: on the answer's logit, signed, over all paths.
        unusual: by how many spreads its effect (of an error: its layer's share of influence) is
            above that of right steps of the same kind, 0..20.
        importance: what the verifier's margin loses without it, relative; 1 where not asked.
        score: the product.
    """

    kind: SuspectKind
    layer: int
    index: int | None
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    effect: float
    unusual: float
    importance: float
    score: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """What is accused of one step's answer.

    Attributes:
        kind: of operation that the step did; see `kinds`.
        suspects: by score, highest first.
        layers: for each layer how unusual the share of its errors is, in spreads; signed.
    """

    kind: str
    suspects: tuple[Suspect, ...]
    layers: tuple[float, ...]

    @property
    def layer(self) -> int:
        """The layer whose errors are the most unusual."""
        return int(np.argmax(self.layers))

    def of_kind(self, *kinds: SuspectKind) -> "Accusation":
        """The same with suspects of some kinds only."""
        return replace(self, suspects=tuple(s for s in self.suspects if s.kind in kinds))

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "kind": self.kind,
            "layer": self.layer,
            "layers": list(self.layers),
            "suspects": [each.to_json() for each in self.suspects],
        }


def accuse(
    graph: AttributionGraph,
    place: StepPlace,
    usual: Usual,
    *,
    kind: str = "",
    importance: Mapping[int, float] | None = None,
    count: int = 24,
) -> Accusation:
    """Rank what could have made a step's answer what it is.

    Args:
        graph: of the target `answer`, unpruned.
        place: of the step.
        usual: figures of right steps.
        kind: of operation that the step did.
        importance: node of the graph -> what the verifier loses without it, relative.
        count: the most suspects to name.
    """
    measured, known = MeasuredGraph(graph, place), usual.known(kind)
    nodes, effects = measured.nodes, measured.effects
    held = np.where(measured.is_kind(ERROR), measured.inputs, 0.0)
    errors = np.flatnonzero(measured.is_kind(ERROR))
    share = np.bincount(nodes.layer[errors], held[errors], measured.n_layers)
    spread = np.maximum(usual.error_spread[known], _LEAST_SPREAD)
    layers = (share - usual.error_mean[known]) / spread
    weight = importance or {}
    found = _features(measured, effects, usual, known, weight)
    for layer in range(measured.n_layers):
        mine = errors[nodes.layer[errors] == layer]
        unusual = _cut(float(layers[layer]))
        found += [_suspect(measured, "error", [n], effects, unusual, weight) for n in mine]
        if len(mine):
            found.append(_suspect(measured, "layer", mine.tolist(), effects, unusual, weight))
    found = [each for each in found if each.score > 0]
    found.sort(key=lambda each: -each.score)
    return Accusation(
        kind=kind, suspects=tuple(found[:count]), layers=tuple(float(each) for each in layers)
    )


def _features(
    measured: MeasuredGraph,
    effects: Float64[np.ndarray, " N"],
    usual: Usual,
    known: str,
    importance: Mapping[int, float],
) -> list[Suspect]:
    rows = np.flatnonzero(measured.is_kind(FEATURE))
    mean, spread = usual.feature_mean[known], usual.feature_spread[known]
    width = len(mean) // measured.n_layers
    numbers = measured.nodes.layer[rows].astype(np.int64) * width + measured.nodes.index[rows]
    above = (effects[rows] - mean[numbers]) / np.maximum(spread[numbers], _LEAST_EFFECT)
    return [
        _suspect(measured, "feature", [int(node)], effects, _cut(float(each)), importance)
        for node, each in zip(rows, above, strict=True)
    ]


def _suspect(
    measured: MeasuredGraph,
    kind: SuspectKind,
    members: Sequence[int],
    effects: Float64[np.ndarray, " N"],
    unusual: float,
    importance: Mapping[int, float],
) -> Suspect:
    nodes, first = measured.nodes, int(members[0])
    effect = float(effects[list(members)].sum())
    matter = max((importance.get(int(node), 1.0) for node in members), default=1.0)
    positions = tuple(int(nodes.position[node]) for node in members)
    shown = positions if len(positions) <= 3 else positions[-3:]
    return Suspect(
        kind=kind,
        layer=int(nodes.layer[first]),
        index=int(nodes.index[first]) if kind == "feature" else None,
        positions=positions,
        tokens=tuple(measured.graph.tokens[p].strip() for p in shown),
        effect=effect,
        unusual=unusual,
        importance=matter,
        score=max(effect, 0.0) * unusual * matter,
    )


def _cut(value: float) -> float:
    return min(max(value, 0.0), LARGEST)
