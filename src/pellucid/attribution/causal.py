"""The causal check of a graph: what it predicts for interventions, beside what they do.

The graph's most influential features are ablated and doubled one at a time. Three runs of the
real modules measure the effect on the explained logits: under the full freeze, where the graph's
direct edges must be exact; with attention patterns frozen; and in the real model. A matched
random control (another feature of the same layer, at the same position, with a change of the same
norm) shows what agreement means nothing.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.measure import Deltas, Freedom, measured_effects
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE, LOGIT

FACTORS = (0.0, 2.0)
BOOTSTRAPS = 1000


@torch.no_grad()
def causal_check(
    linear: LinearModel, graph: AttributionGraph, *, features: int = 24, seed: int = 0
) -> dict[str, Any] | None:
    """Intervene on the graph's top features and compare with its predictions.

    Effects are on the most probable explained logit (less the mean logit). Correlations and signs
    compare effects per unit of change, so that ablating and doubling a feature do not agree by
    construction. Intervals are 95% bootstrap intervals over features.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph, unpruned.
        features: how many features to check.
        seed: of the control features and the bootstrap.

    Returns:
        Figures and one row an intervention; None when the graph has no feature.
    """
    top = _top_features(graph, features)
    if len(top) == 0:
        return None
    logit_nodes = np.flatnonzero(graph.nodes.is_kind(LOGIT))
    direct, total = predicted_effects(graph, logit_nodes, top)
    generator = torch.Generator().manual_seed(seed)
    deltas = _feature_deltas(linear, graph, top)
    control = _control_deltas(linear, graph, top, deltas, generator)
    tokens = torch.from_numpy(graph.nodes.index[logit_nodes])
    local = linear.local

    def measure(changes: Deltas, freedom: Freedom) -> np.ndarray:
        """Effects per factor: [factors, features, logits]."""
        scaled = [_scaled(changes, factor - 1.0) for factor in FACTORS]
        return np.stack(
            [measured_effects(local, part, tokens, freedom).double().numpy() for part in scaled]
        )

    frozen = measure(deltas, "frozen")
    change = np.array(FACTORS)[:, None, None] - 1.0
    largest = max(float(np.abs(frozen).max()), 1e-12)
    frozen_max_error = float(np.abs(frozen - change * direct.T[None]).max()) / largest
    measured = {
        "attention_frozen": measure(deltas, "attention_frozen")[..., 0],
        "real": measure(deltas, "real")[..., 0],
        "random": measure(control, "real")[..., 0],
    }
    result: dict[str, Any] = {
        "frozen_max_error": frozen_max_error,
        "n": len(top) * len(FACTORS),
        "target": _target(graph, int(logit_nodes[0])),
    }
    rng = np.random.default_rng(seed)
    for name, effects in measured.items():
        per_unit = effects / change[..., 0]
        result |= _agreement(name, np.broadcast_to(total[0], per_unit.shape), per_unit, rng)
    result["median_effect_ratio"] = _ratio(measured["real"], measured["random"])
    result["rows"] = _rows(graph, top, change, direct[0], total[0], frozen[..., 0], measured)
    return result


def predicted_effects(
    graph: AttributionGraph, logit_nodes: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Effect on each logit of removing nothing but one unit of a feature: (direct, total).

    Direct: the edge. Total: the signed sum over all paths through the graph's features, where a
    feature answers a change of its pre-activation linearly: T[s] = A[logit, s] +
    sum_t T[t] / a_t A[t, s]. Both have shape [logits, features] and are for a change by +1 times
    the feature's own activation.
    """
    n_nodes = len(graph.nodes)
    direct = np.zeros((len(logit_nodes), len(features)))
    total = np.zeros_like(direct)
    column = np.full(n_nodes, -1)
    column[features] = np.arange(len(features))
    edges = graph.edges
    starts = np.searchsorted(edges.target, np.arange(n_nodes + 1))
    is_feature = graph.nodes.is_kind(FEATURE)
    by_layer = np.flatnonzero(is_feature)[np.argsort(-graph.nodes.layer[is_feature], kind="stable")]
    for row, logit in enumerate(logit_nodes):
        flow = np.zeros(n_nodes)
        own = slice(starts[logit], starts[logit + 1])
        flow[edges.source[own]] = edges.weight[own]
        direct[row] = flow[features]
        for node in by_layer:
            own = slice(starts[node], starts[node + 1])
            flow[edges.source[own]] += edges.weight[own] * (
                flow[node] / graph.nodes.activation[node]
            )
        total[row] = flow[features]
    return direct, total


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation with ties averaged; None where either side is constant."""
    ranks = [_average_ranks(np.asarray(values).ravel()) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / norm if norm > 0 else None


def _average_ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2.0)[inverse]


def _top_features(graph: AttributionGraph, count: int) -> np.ndarray:
    weight = np.where(graph.nodes.is_kind(FEATURE), influence(graph), -1.0)
    order = np.argsort(-weight, kind="stable")[:count]
    return order[weight[order] > 0]


def _feature_deltas(linear: LinearModel, graph: AttributionGraph, top: np.ndarray) -> Deltas:
    layers, positions = graph.nodes.layer[top], graph.nodes.position[top]
    vectors = [
        linear.local.layers[int(layer)].active.direction(torch.tensor([int(index)]))[0]
        * float(activation)
        for layer, index, activation in zip(
            layers, graph.nodes.index[top], graph.nodes.activation[top], strict=True
        )
    ]
    return Deltas(
        layers=torch.from_numpy(layers.astype(np.int64)),
        positions=torch.from_numpy(positions.astype(np.int64)),
        vectors=torch.stack(vectors).to(linear.tokens.dtype),
    )


def _control_deltas(
    linear: LinearModel,
    graph: AttributionGraph,
    top: np.ndarray,
    deltas: Deltas,
    generator: torch.Generator,
) -> Deltas:
    """For each feature another one of its layer, inactive at its position, at the same norm."""
    vectors = []
    for node, delta in zip(top.tolist(), deltas.vectors, strict=True):
        layer = int(graph.nodes.layer[node])
        active = linear.local.layers[layer].active
        every = active.direction(torch.arange(active.num_features))
        allowed = every.norm(dim=1) > 0
        allowed[active.features[active.positions == int(graph.nodes.position[node])]] = False
        candidates = allowed.nonzero().squeeze(1)
        pick = int(torch.randint(len(candidates), (1,), generator=generator))
        direction = every[candidates[pick]].to(delta.dtype)
        vectors.append(direction * (delta.norm() / direction.norm()))
    return Deltas(layers=deltas.layers, positions=deltas.positions, vectors=torch.stack(vectors))


def _scaled(deltas: Deltas, factor: float) -> Deltas:
    return Deltas(layers=deltas.layers, positions=deltas.positions, vectors=deltas.vectors * factor)


def _target(graph: AttributionGraph, node: int) -> dict[str, Any]:
    return {
        "position": int(graph.nodes.position[node]),
        "token_id": int(graph.nodes.index[node]),
        "label": graph.nodes.label[node],
    }


def _agreement(
    name: str,
    predicted: Float[np.ndarray, "factors n"],
    measured: Float[np.ndarray, "factors n"],
    rng: np.random.Generator,
) -> dict[str, Any]:
    n = predicted.shape[1]
    samples = (rng.integers(n, size=n) for _ in range(BOOTSTRAPS))
    values = [spearman(predicted[:, pick], measured[:, pick]) for pick in samples]
    finite = [value for value in values if value is not None]
    interval = [float(x) for x in np.quantile(finite, [0.025, 0.975])] if finite else None
    return {
        f"spearman_{name}": spearman(predicted, measured),
        f"spearman_{name}_interval": interval,
        f"sign_agreement_{name}": float((np.sign(predicted) == np.sign(measured)).mean()),
    }


def _ratio(real: np.ndarray, control: np.ndarray) -> float | None:
    """Median |effect| of the features over that of their controls."""
    reference = float(np.median(np.abs(control)))
    return float(np.median(np.abs(real))) / reference if reference > 0 else None


def _rows(
    graph: AttributionGraph,
    top: np.ndarray,
    change: np.ndarray,
    direct: np.ndarray,
    total: np.ndarray,
    frozen: np.ndarray,
    measured: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    return [
        {
            "node": node,
            "layer": int(graph.nodes.layer[node]),
            "position": int(graph.nodes.position[node]),
            "feature": int(graph.nodes.index[node]),
            "factor": factor,
            "predicted_direct": float(change[i, 0, 0] * direct[j]),
            "predicted_total": float(change[i, 0, 0] * total[j]),
            "frozen": float(frozen[i, j]),
            "attention_frozen": float(measured["attention_frozen"][i, j]),
            "real": float(measured["real"][i, j]),
            "random_real": float(measured["random"][i, j]),
        }
        for i, factor in enumerate(FACTORS)
        for j, node in enumerate(top.tolist())
    ]
