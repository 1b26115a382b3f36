"""The causal test of supernodes: does removing a group do what its parts predict?

Members of a proposed group are ablated together, and the effect is read at the contrasts of the
likeliest token with the next ones and at downstream features, each in units of its own value: the
group's profile.
The graph predicts the profile of a group as the sum of its members' path sums. A group is accepted
only when, in the real model, the measured profile lies within a stated distance of that sum, and
nearer to it than the profiles of random groups of the same size and places.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pellucid.attribution.checks.derivatives import Answer, first_order_effects
from pellucid.attribution.checks.interventions import (
    feature_deltas,
    feature_probe,
    reaches,
    targets_of,
)
from pellucid.attribution.checks.measure import Deltas, Freedom, probed_effects
from pellucid.attribution.checks.predict import predicted_effects
from pellucid.attribution.checks.probes import LogitProbe, Probe
from pellucid.attribution.linearise import LinearModel
from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.supernodes import Supernode, with_supernodes
from pellucid.graphs.tables import FEATURE

TOLERANCE = 0.5
"""A group's measured profile may differ from the predicted one by this share of its own length."""
SIGNIFICANCE = 0.05
CONTROLS = 39
CONTRASTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCheck:
    """What ablating one group did, beside what was predicted.

    Errors are distances between the predicted profile and the measured one over the length of the
    measured one; 1 is as wrong as predicting nothing, None where the group changed nothing.

    Attributes:
        name: of the group.
        features: its members as (layer, position, feature).
        accepted: whether the group did in the real model what the graph predicts.
        reason: why, in words.
        error_frozen: of the direct edges under the full freeze (exact but for rounding).
        error_attention_frozen: of the path sums with attention patterns frozen.
        error_real: of the path sums in the real model; this one decides.
        error_norms: of the prediction that lets norms answer, in the real model.
        error_parts: of the sum of what every member did alone, in the real model (additivity).
        p: share of random groups (this one counted among them) whose measured profile is at least
            as near to the prediction.
        controls: how many random groups there were.
        contrast: effect on the two likeliest tokens' difference in logits, in logits: `predicted`,
            `predicted_norms`, `parts` and `real`.
        readings: how many places the profile has.
    """

    name: str
    features: tuple[tuple[int, int, int], ...]
    accepted: bool
    reason: str
    error_frozen: float | None
    error_attention_frozen: float | None
    error_real: float | None
    error_norms: float | None
    error_parts: float | None
    p: float
    controls: int
    contrast: dict[str, float]
    readings: int

    def to_json(self) -> dict[str, Any]:
        """The check as a JSON-able record."""
        return asdict(self)


@torch.no_grad()
def check_groups(
    linear: LinearModel,
    graph: AttributionGraph,
    groups: Sequence[Sequence[int]],
    *,
    names: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
    significance: float = SIGNIFICANCE,
    controls: int = CONTROLS,
    seed: int = 0,
) -> list[GroupCheck]:
    """Ablate each group as a whole and compare with the sum of its parts' predictions.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph, unpruned; path sums run over all active features, those that a capped
            graph dropped included.
        groups: feature nodes of the graph, one list a group.
        names: of the groups; "group 0", ... by default.
        tolerance: the largest `error_real` of an accepted group.
        significance: the largest `p` of an accepted group.
        controls: random groups a group; active features of the same layers and positions where
            there are enough others, else of the same layers.
        seed: of the random groups.

    Raises:
        GraphError: a group that is empty, repeats a node, or has a node that is no feature.
    """
    members = [_members(graph, group, number) for number, group in enumerate(groups)]
    names = [f"group {number}" for number in range(len(groups))] if names is None else list(names)
    if len(names) != len(members):
        raise GraphError(f"there are {len(names)} names for {len(members)} groups; give one each")
    if not members:
        return []
    test = _Test(linear, graph, members)
    rng = np.random.default_rng(seed)
    return [
        test.check(
            number,
            name,
            tolerance=tolerance,
            significance=significance,
            controls=controls,
            rng=rng,
        )
        for number, name in enumerate(names)
    ]


def accept_supernodes(
    linear: LinearModel, graph: AttributionGraph, proposals: Sequence[Supernode], **settings: Any
) -> AttributionGraph:
    """Test proposals and keep those that are accepted as the graph's supernodes.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph, unpruned.
        proposals: groups of its features, such as `pellucid.graphs.proposals.propose` gives.
        **settings: of `check_groups`.

    Returns:
        The graph with the accepted proposals as supernodes, and every check, of refused ones too,
        in `metadata["supernode_checks"]`.

    Raises:
        GraphError: see `check_groups`.
    """
    labels = [proposal.label for proposal in proposals]
    checks = check_groups(linear, graph, [p.nodes for p in proposals], names=labels, **settings)
    accepted = [p for p, check in zip(proposals, checks, strict=True) if check.accepted]
    return with_supernodes(with_group_checks(graph, checks), accepted)


def with_group_checks(graph: AttributionGraph, checks: Sequence[GroupCheck]) -> AttributionGraph:
    """The graph with the checks kept in `metadata["supernode_checks"]`."""
    records = [check.to_json() for check in checks]
    return replace(graph, metadata=graph.metadata | {"supernode_checks": records})


def _members(graph: AttributionGraph, group: Sequence[int], number: int) -> Int64[np.ndarray, " n"]:
    nodes = np.array(sorted(group), dtype=np.int64)
    if not len(nodes) or len(np.unique(nodes)) < len(nodes):
        raise GraphError(
            f"group {number} is {list(group)}; give at least one node and each node once"
        )
    outside = (nodes < 0) | (nodes >= len(graph.nodes))
    wrong = nodes[outside] if outside.any() else nodes[graph.nodes.kind[nodes] != FEATURE]
    if len(wrong):
        raise GraphError(
            f"group {number} holds node {int(wrong[0])}, which is no feature of the graph; groups "
            "are tested by ablating features"
        )
    return nodes


class _Test:
    """Profiles of the groups, predicted and measured, at places that all groups share."""

    def __init__(
        self, linear: LinearModel, graph: AttributionGraph, members: list[np.ndarray]
    ) -> None:
        self._linear, self._graph, self._members = linear, graph, members
        every = np.unique(np.concatenate(members))
        self._targets = targets_of(graph, every)
        position, run = len(graph.tokens) - 1, linear.local.run
        logits, tokens = run.logits[position].topk(min(1 + CONTRASTS, run.logits.shape[1]))
        best, *others = tokens.tolist()
        self._contrasts, nodes = len(others), graph.nodes
        self._probes: list[Probe] = [LogitProbe(best, other, position) for other in others]
        self._probes += [
            feature_probe(linear, int(nodes.layer[n]), int(nodes.position[n]), int(nodes.index[n]))
            for n in self._targets
        ]
        margins = (logits[:1] - logits[1:]).clamp_min(1e-6).double().cpu().numpy()
        features = graph.target_values[self._targets].astype(np.float64)
        self._values = np.concatenate([margins, features])
        runs = np.repeat(np.arange(len(members)), [len(group) for group in members])
        joint = feature_deltas(linear, graph, np.concatenate(members), runs).scaled(-1.0)
        self._frozen = self._measured(joint, "frozen")
        self._attention_frozen = self._measured(joint, "attention_frozen")
        self._real = self._measured(joint, "real")
        self._predicted = self._first_order(joint, "features")
        self._norms = self._first_order(joint, "norms")
        single = self._measured(feature_deltas(linear, graph, every).scaled(-1.0), "real")
        self._parts = np.stack([single[np.searchsorted(every, g)].sum(axis=0) for g in members])
        direct, _ = predicted_effects(graph, self._targets, every)
        edges = [-direct.T[np.searchsorted(every, g)].sum(axis=0) for g in members]
        self._direct = np.stack(edges) / features

    def check(
        self,
        number: int,
        name: str,
        *,
        tolerance: float,
        significance: float,
        controls: int,
        rng: np.random.Generator,
    ) -> GroupCheck:
        """Judge one group."""
        group, nodes = self._members[number], self._graph.nodes
        downstream = [bool(reaches(self._graph, group, t).any()) for t in self._targets]
        read = np.array([True] * self._contrasts + downstream)
        frozen = self._frozen[number, self._contrasts :]
        predicted, real = self._predicted[number, read], self._real[number, read]
        p = self._nearer(group, predicted, real, read, controls, rng)
        error = _error(predicted, real)
        accepted = error is not None and error <= tolerance and p <= significance
        value = self._values[0]
        return GroupCheck(
            name=name,
            features=tuple(
                (int(nodes.layer[n]), int(nodes.position[n]), int(nodes.index[n])) for n in group
            ),
            accepted=accepted,
            reason=_reason(error, p, tolerance, significance),
            error_frozen=_error(self._direct[number, downstream], frozen[downstream]),
            error_attention_frozen=_error(predicted, self._attention_frozen[number, read]),
            error_real=error,
            error_norms=_error(self._norms[number, read], real),
            error_parts=_error(self._parts[number, read], real),
            p=p,
            controls=controls,
            contrast={
                "predicted": float(predicted[0] * value),
                "predicted_norms": float(self._norms[number, 0] * value),
                "parts": float(self._parts[number, 0] * value),
                "real": float(real[0] * value),
            },
            readings=int(read.sum()),
        )

    def _nearer(
        self,
        group: np.ndarray,
        predicted: np.ndarray,
        real: np.ndarray,
        read: np.ndarray,
        controls: int,
        rng: np.random.Generator,
    ) -> float:
        """Share of random groups, this one among them, as near to the prediction as this one."""
        if controls == 0:
            return 1.0
        drawn = np.concatenate([random_group(self._graph, group, rng) for _ in range(controls)])
        runs = np.repeat(np.arange(controls), len(group))
        deltas = feature_deltas(self._linear, self._graph, drawn, runs).scaled(-1.0)
        others = self._measured(deltas, "real")[:, read]
        distance = np.linalg.norm(others - predicted, axis=1)
        return float(1 + (distance <= np.linalg.norm(real - predicted)).sum()) / (1 + controls)

    def _measured(self, deltas: Deltas, freedom: Freedom) -> Float64[np.ndarray, "B readings"]:
        effects = probed_effects(self._linear.local, deltas, self._probes, freedom)
        return self._profile(effects)

    def _first_order(self, deltas: Deltas, answer: Answer) -> Float64[np.ndarray, "B readings"]:
        return self._profile(first_order_effects(self._linear.local, deltas, self._probes, answer))

    def _profile(self, effects: torch.Tensor) -> Float64[np.ndarray, "B readings"]:
        """The contrasts, then the features, in units of their values."""
        return effects.double().cpu().numpy() / self._values


def random_group(
    graph: AttributionGraph, group: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """As many other features, one for each member: of its layer and position, or of its layer.

    Where even a layer has no other feature left, a member stands for itself.
    """
    nodes, taken = graph.nodes, set(group.tolist())
    free = nodes.is_kind(FEATURE)
    picks = []
    for node in group.tolist():
        layer = free & (nodes.layer == nodes.layer[node])
        for pool in (layer & (nodes.position == nodes.position[node]), layer):
            candidates = np.array([n for n in np.flatnonzero(pool) if n not in taken])
            if len(candidates):
                break
        pick = int(rng.choice(candidates)) if len(candidates) else node
        taken.add(pick)
        picks.append(pick)
    return np.array(picks, dtype=np.int64)


def _error(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    size = float(np.linalg.norm(measured))
    return float(np.linalg.norm(predicted - measured)) / size if size > 0 else None


def _reason(error: float | None, p: float, tolerance: float, significance: float) -> str:
    if error is None:
        return "removing the group changed nothing that was read"
    if error > tolerance:
        return (
            f"the measured effect differs from the sum of the parts' predictions by {error:.0%} "
            f"of itself, more than {tolerance:.0%}"
        )
    if p > significance:
        return (
            f"random groups of the same size and layers fit the prediction as well (p = {p:.2f}, "
            f"above {significance:g})"
        )
    return (
        f"the measured effect is within {error:.0%} of the sum of the parts' predictions, and "
        f"random groups are farther from it (p = {p:.2f})"
    )
