"""Scores of every node of a prompt, by each method. Every score is of size: how much it matters.

Ours:
    graph influence      influence of the node in the attribution graph (all paths, |shares|)
    graph path sum       |signed sum over all paths of the graph's edges|
Rivals, gradients of the metric m in the real model, where features and error add up to the output:
    attribution patching |a dm/da|, first order in removing the node (Syed et al. 2023; a node's
                         score is the sum over its outgoing edges)
    EAP-IG               |a mean dm/da|, the mean over inputs where the features of the node's layer
                         are scaled by 1/(2n), 3/(2n), ... (Hanna et al. 2024, with interpolated
                         activations and the removed feature as baseline)
Controls:
    activation patching  |m(model) - m(model without the node)|, exact, one run a node
    random               any order
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Case, Nodes, contributions
from pellucid.attribution.explain import Logit
from pellucid.attribution.trace import trace
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.taps import TapCall
from pellucid.replacement.freeze import Taps

IG_STEPS = 8
MOST_ROWS = 1024
"""Features that a graph keeps: only a gated model's neurons are more."""
ROWS_AT_ONCE = 256
Method = Callable[[Case, Basis, Nodes], Float[Tensor, " n"]]


def attribution_graph(case: Case, basis: Basis) -> AttributionGraph:
    """The graph of the right answer's logit."""
    return trace(
        case.model,
        case.ids.tolist(),
        basis.dictionaries,
        targets=[Logit(case.answer)],
        max_features=MOST_ROWS,
        causal=False,
    )


def graph_influence(graph: AttributionGraph, nodes: Nodes) -> Float[Tensor, " n"]:
    """Influence of every node."""
    return on_nodes(graph, influence(graph), nodes)


def graph_path_sum(graph: AttributionGraph, nodes: Nodes) -> Float[Tensor, " n"]:
    """Size of the signed sum over all paths from every node to the answer.

    A feature that is changed by some share of itself changes by that share what it writes, so a
    path's effect is the product of its edges, each over the activation of the feature it enters.
    """
    edges, features = graph.edges, graph.nodes.is_kind(FEATURE)
    starts = np.searchsorted(edges.target, np.arange(len(graph.nodes) + 1))
    flow = np.where(graph.nodes.is_kind(LOGIT), 1.0, 0.0)
    order = np.argsort(-graph.nodes.rank(), kind="stable")
    for node in order[(features | graph.nodes.is_kind(LOGIT))[order]]:
        value = graph.nodes.activation[node] if features[node] else 1.0
        own = slice(starts[node], starts[node + 1])
        flow[edges.source[own]] += edges.weight[own] * (flow[node] / value)
    return on_nodes(graph, np.abs(flow), nodes)


def on_nodes(graph: AttributionGraph, values: np.ndarray, nodes: Nodes) -> Float[Tensor, " n"]:
    """Values of a graph's nodes, for the same features in the order of `nodes`.

    Features that a capped graph left out get 0.
    """
    table = graph.nodes
    features = np.flatnonzero(table.is_kind(FEATURE))
    columns = (table.layer[features], table.position[features], table.index[features])
    found = dict(zip(zip(*(c.tolist() for c in columns), strict=True), features, strict=True))
    return torch.tensor(
        [float(values[found[key]]) if key in found else 0.0 for key in nodes.places()]
    )


def attribution_patching(case: Case, basis: Basis, nodes: Nodes) -> Float[Tensor, " n"]:
    """First-order effect of removing each node."""
    return (activation_gradients(case, basis, nodes, scales=[1.0]) * nodes.activations).abs()


def eap_ig(case: Case, basis: Basis, nodes: Nodes, *, steps: int = IG_STEPS) -> Float[Tensor, " n"]:
    """Effect of removing each node, its gradient averaged over a path."""
    scales = [(step + 0.5) / steps for step in range(steps)]
    return (activation_gradients(case, basis, nodes, scales=scales) * nodes.activations).abs()


def activation_gradients(
    case: Case, basis: Basis, nodes: Nodes, *, scales: list[float]
) -> Float[Tensor, " n"]:
    """dm/da of every node, a mean over runs in which the node's layer is scaled by each scale.

    The rest of the run is the real model's: errors stay, later MLPs answer for real.
    """
    length, found = len(case.ids), torch.zeros(len(nodes))
    parts = contributions(basis, nodes, length)
    missing = 1 - torch.tensor(scales)[:, None, None]
    for layer in nodes.layers.unique().tolist():
        offsets = {
            target: (-missing * parts[layer, target]).requires_grad_()
            for target in basis.writes_to(layer)
        }
        with torch.enable_grad(), case.model.tapped(_offset_taps(offsets)):
            metric = case.metric(case.model.logits(case.ids.expand(len(scales), -1)))
            gradients = torch.autograd.grad(metric.sum(), list(offsets.values()))
        own = nodes.layers == layer
        for target, g_BSd in zip(offsets, gradients, strict=True):
            rows = basis.decoders[layer, target][nodes.indices[own]]
            found[own] += (g_BSd.mean(0)[nodes.positions[own]] * rows).sum(-1)
    return found


@torch.no_grad()
def activation_patching(case: Case, basis: Basis, nodes: Nodes) -> Float[Tensor, " n"]:
    """What removing each node alone does to the real model, exactly."""
    effects = replaced_effects(case, basis, nodes, torch.zeros(len(nodes)))
    return effects.abs()


@torch.no_grad()
def replaced_effects(
    case: Case, basis: Basis, nodes: Nodes, values: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Change of the metric when one node at a time gets a new activation, in the real model."""
    change = values - nodes.activations
    clean = case.metric(case.model.logits(case.ids[None]))
    effects = []
    for rows in torch.arange(len(nodes)).split(ROWS_AT_ONCE):
        offsets = {
            n: torch.zeros(len(rows), len(case.ids), case.model.d_model)
            for n in range(basis.n_layers)
        }
        for (source, target), decoder in basis.decoders.items():
            own = (nodes.layers[rows] == source).nonzero().squeeze(1)
            node = rows[own]
            written = decoder[nodes.indices[node]] * change[node, None]
            offsets[target][own, nodes.positions[node]] = written
        with case.model.tapped(_offset_taps(offsets)):
            effects.append(case.metric(case.model.logits(case.ids.expand(len(rows), -1))) - clean)
    return torch.cat(effects)


def random_scores(nodes: Nodes, seed: int) -> Float[Tensor, " n"]:
    """Any order."""
    return torch.rand(len(nodes), generator=torch.Generator().manual_seed(seed))


def _offset_taps(offsets: dict[int, Tensor]) -> Taps:
    """Add to the MLP outputs of some layers."""

    def adding(offset: Tensor) -> Callable[[Tensor, TapCall], Tensor]:
        return lambda value, _call: value + offset

    return [(Site("mlp_out", layer), adding(offset)) for layer, offset in offsets.items()]
