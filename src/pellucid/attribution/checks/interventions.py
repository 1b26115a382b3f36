"""Which features the causal check intervenes on, where it reads, and with what control."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pellucid.attribution.checks.measure import Deltas
from pellucid.attribution.checks.probes import LogitProbe, Probe, SiteProbe
from pellucid.attribution.linearise import LinearModel
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE
from pellucid.replacement.features import ActiveFeatures

BANDS = ("shallow", "middle", "deep")
"""Thirds of the model's layers."""
TARGET_LAYERS, TARGETS_A_LAYER, FEWEST_SOURCES = 6, 2, 3
MOST_DRAWS = 1000


def bands(graph: AttributionGraph, nodes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The third of the model, an index into `BANDS`, that each node's layer lies in."""
    return (len(BANDS) * graph.nodes.layer[nodes].astype(np.int64)) // graph.n_layers


def top_features(graph: AttributionGraph, count: int) -> Int64[np.ndarray, " n"]:
    """The features of most influence on the logits, at most `count`, those of none left out."""
    weight = np.where(graph.nodes.is_kind(FEATURE), influence(graph), -1.0)
    order = np.argsort(-weight, kind="stable")[:count]
    return order[weight[order] > 0]


def sources_of(graph: AttributionGraph, count: int) -> tuple[Int64[np.ndarray, " n"], int]:
    """The top features, then those that give each third of the model `count` / 3 of them.

    Returns:
        The features' nodes, and how many of them, the first ones, are the top features.
    """
    ranked = top_features(graph, len(graph.nodes))
    top, band = ranked[:count], bands(graph, ranked)
    of_bands = [ranked[band == number][: -(-count // len(BANDS))] for number in range(len(BANDS))]
    more = np.concatenate(of_bands)
    return np.concatenate([top, more[~np.isin(more, top)]]), len(top)


def targets_of(
    graph: AttributionGraph, sources: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " m"]:
    """Features to read downstream: the most influential ones of some layers, lowest layer first."""
    ranked = top_features(graph, len(graph.nodes))
    ranked = ranked[[reaches(graph, sources, node).sum() >= FEWEST_SOURCES for node in ranked]]
    if not len(ranked):
        return ranked
    layers = np.unique(graph.nodes.layer[ranked])
    spread = np.linspace(0, len(layers) - 1, min(TARGET_LAYERS, len(layers)))
    chosen = [
        ranked[graph.nodes.layer[ranked] == layer][:TARGETS_A_LAYER]
        for layer in layers[spread.round().astype(int)]
    ]
    return np.concatenate(chosen)


def reaches(graph: AttributionGraph, sources: Int64[np.ndarray, " n"], target: int) -> np.ndarray:
    """Which sources lie before a feature in the computation, [n] booleans."""
    nodes = graph.nodes
    earlier = nodes.layer[sources] < nodes.layer[target]
    return earlier & (nodes.position[sources] <= nodes.position[target])


def target_probe(
    linear: LinearModel, graph: AttributionGraph, node: int, number: int
) -> Probe | None:
    """Where the value of what a graph explains is read; None for a direction, which it lacks.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph.
        node: its node.
        number: which of the explained things it is.
    """
    records = graph.metadata.get("targets", [])
    record: dict[str, Any] = records[number] if number < len(records) else {"kind": "logit"}
    position = int(graph.nodes.position[node])
    if record["kind"] == "logit":
        return LogitProbe(int(graph.nodes.index[node]), position=position)
    if record["kind"] == "difference":
        return LogitProbe(record["token"], record["other"], position)
    if record["kind"] == "feature":
        return feature_probe(linear, record["layer"], record["position"], record["feature"])
    return None


def feature_probe(linear: LinearModel, layer: int, position: int, feature: int) -> SiteProbe:
    """Where the pre-activation of an active feature is read."""
    own = linear.local.layers[layer]
    vectors, _ = own.active.read(_number(linear, layer, position, feature))
    return SiteProbe(own.read_site, position, vectors[0])


def feature_deltas(
    linear: LinearModel,
    graph: AttributionGraph,
    features: Int64[np.ndarray, " n"],
    runs: Int64[np.ndarray, " n"] | None = None,
) -> Deltas:
    """For each feature what it writes, as a change: scaled by -1 it ablates, by +1 it doubles.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph.
        features: nodes.
        runs: the run each belongs to, ascending from 0; by default each has its own.
    """
    nodes, local = graph.nodes, linear.local
    sites: list[Site] = []
    vectors, positions, owners = [], [], []
    numbers = range(len(features)) if runs is None else runs.tolist()
    for run, node in zip(numbers, features, strict=True):
        layer, position = int(nodes.layer[node]), int(nodes.position[node])
        own = _alone(linear, layer, position, int(nodes.index[node]))
        for slot, site in local.slots(layer).items():
            sites.append(site)
            vectors.append(own.written(slot)[0])
            positions.append(position)
            owners.append(run)
    return Deltas(
        sites=tuple(sites),
        positions=torch.tensor(positions, device=linear.tokens.device),
        vectors=torch.stack(vectors),
        runs=torch.tensor(owners, device=linear.tokens.device),
    )


def control_deltas(
    linear: LinearModel,
    graph: AttributionGraph,
    features: Int64[np.ndarray, " n"],
    deltas: Deltas,
    generator: torch.Generator,
) -> Deltas:
    """For each feature's change another one as large, along a feature of its layer drawn at random.

    The drawn feature is inactive at the position, unless in that basis all are active; it writes
    where the feature itself writes, and each of its vectors has the norm of the one it replaces.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph.
        features: the nodes that `deltas` change, one a run.
        deltas: the changes.
        generator: of the draw.
    """
    nodes, vectors = graph.nodes, []
    for run, node in enumerate(features.tolist()):
        layer, position = int(nodes.layer[node]), int(nodes.position[node])
        active = linear.local.layers[layer].active
        here = set(active.features[active.positions == position].tolist())
        own = int(nodes.index[node])
        taken = here if len(here) < active.num_features else {own}
        norms = deltas.vectors[deltas.runs == run].norm(dim=1)
        directions = _random_directions(active, list(linear.local.slots(layer)), taken, generator)
        vectors += [
            direction * (norm / direction.norm().clamp_min(1e-30))
            for direction, norm in zip(directions, norms, strict=True)
        ]
    return deltas.replaced(torch.stack(vectors))


def _random_directions(
    active: ActiveFeatures, slots: list[int], taken: set[int], generator: torch.Generator
) -> list[Tensor]:
    """What a random feature that is not taken writes to each slot; one that writes, if possible."""
    directions: list[Tensor] = []
    for _ in range(MOST_DRAWS):
        pick = torch.randint(active.num_features, (1,), generator=generator)
        if int(pick) in taken:
            continue
        chosen = pick.to(active.features.device)
        directions = [active.direction(chosen, slot)[0] for slot in slots]
        if all(direction.norm() > 0 for direction in directions):
            break
    if not directions:
        free = next(n for n in range(active.num_features) if n not in taken)
        chosen = torch.tensor([free], device=active.features.device)
        directions = [active.direction(chosen, slot)[0] for slot in slots]
    return directions


def _alone(linear: LinearModel, layer: int, position: int, feature: int) -> ActiveFeatures:
    """One active feature of a layer by itself, so that nothing is gathered of the others."""
    active, chosen = linear.local.layers[layer].active, _number(linear, layer, position, feature)
    names = ("positions", "features", "activations")
    return replace(active, **{name: getattr(active, name)[chosen] for name in names})


def _number(linear: LinearModel, layer: int, position: int, feature: int) -> Tensor:
    """Which of a layer's active features this is, [1]."""
    active = linear.local.layers[layer].active
    here = (active.positions == position) & (active.features == feature)
    return here.nonzero().squeeze(1)
