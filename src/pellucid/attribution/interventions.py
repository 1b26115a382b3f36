"""Which features the causal check intervenes on, where it reads, and with what control."""

import numpy as np
import torch
from jaxtyping import Int64

from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.measure import Deltas, Probes
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE

BANDS = ("shallow", "middle", "deep")
"""Thirds of the model's layers."""
TARGET_LAYERS, TARGETS_A_LAYER, FEWEST_SOURCES = 6, 2, 3


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


def feature_probes(
    linear: LinearModel, graph: AttributionGraph, tokens: torch.Tensor, features: np.ndarray
) -> Probes:
    """Probes of some tokens' logits and some features' pre-activations."""
    nodes, directions, sites = graph.nodes, [], []
    for node in features:
        dictionary = linear.local.dictionaries[int(nodes.layer[node])]
        assert isinstance(dictionary.read_site, Site)
        sites.append(dictionary.read_site)
        directions.append(dictionary.encoder_rows(torch.tensor([int(nodes.index[node])]))[0])
    if not sites:
        return Probes(tokens=tokens)
    return Probes(
        tokens=tokens,
        sites=tuple(sites),
        positions=torch.from_numpy(nodes.position[features].astype(np.int64)),
        directions=torch.stack(directions),
    )


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
    nodes, dictionaries = graph.nodes, linear.local.dictionaries
    vectors = [
        dictionaries[int(nodes.layer[node])].decoder_rows(torch.tensor([int(nodes.index[node])]))[0]
        * float(nodes.activation[node])
        for node in features
    ]
    return Deltas(
        layers=torch.from_numpy(nodes.layer[features].astype(np.int64)),
        positions=torch.from_numpy(nodes.position[features].astype(np.int64)),
        vectors=torch.stack(vectors).to(linear.tokens.dtype),
        runs=torch.arange(len(features)) if runs is None else torch.from_numpy(runs),
    )


def control_deltas(linear: LinearModel, deltas: Deltas, generator: torch.Generator) -> Deltas:
    """For each change another as large, along a feature of its layer inactive at its position."""
    vectors = []
    for layer, position, delta in zip(
        deltas.layers.tolist(), deltas.positions.tolist(), deltas.vectors, strict=True
    ):
        local, dictionary = linear.local.layers[layer], linear.local.dictionaries[layer]
        allowed = dictionary.W_dec.norm(dim=1) > 0
        allowed[local.features[local.positions == position]] = False
        candidates = allowed.nonzero().squeeze(1)
        pick = int(torch.randint(len(candidates), (1,), generator=generator))
        direction = dictionary.W_dec[candidates[pick]].to(delta.dtype)
        vectors.append(direction * (delta.norm() / direction.norm()))
    return Deltas(
        layers=deltas.layers,
        positions=deltas.positions,
        vectors=torch.stack(vectors),
        runs=deltas.runs,
    )
