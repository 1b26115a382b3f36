"""Family `node`: activations and influence of the features (Zhao et al. 2025), and their layers.

Which influence the paper averages is not known: the raw one, and the cumulative share by rank
that circuit-tracer writes to its files, are both here.
"""

import numpy as np

from pellucid.graphs.tables import FEATURE
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, entropy, ratio, summary

DEFINITIONS = (
    Definition("node.activation_{statistic}", "activation of the graph's features", "any"),
    Definition(
        "node.influence_{statistic}",
        "raw influence of the graph's features, 1 being all of the prediction; the mean falls with "
        "the number of features",
    ),
    Definition(
        "node.cumulative_{statistic}",
        "cumulative share of influence of the graph's features and those above each (rank score)",
        stands="length",
    ),
    Definition("node.kept_activation_{statistic}", "activation of the features kept", "any"),
    Definition("node.kept_influence_{statistic}", "raw influence of the features kept"),
    Definition(
        "node.weighted_activation",
        "mean activation of the features, weighted by their influence",
        "any",
    ),
    Definition("node.active_{layer}", "features of the graph in a layer", "0..", "length"),
    Definition("node.active_per_token_{layer}", "`node.active_{layer}` by tokens", "0..", "length"),
    Definition("node.active_share_{layer}", "part of the graph's features that lie in a layer"),
    Definition("node.kept_share_{layer}", "part of the features kept that lie in a layer"),
    Definition("node.influence_share_{layer}", "part of the features' influence held by a layer"),
    Definition(
        "node.depth", "influence-weighted mean layer of the features, 0 the first and 1 the last"
    ),
    Definition("node.entropy", "entropy of influence over features, as a part of the largest"),
    Definition("node.top1_share", "share of the features' influence that the first of them holds"),
    Definition("node.top5_share", "share of the features' influence that the first five hold"),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    features = np.flatnonzero(measured.is_kind(FEATURE))
    kept = measured.pruned[0][features]
    activation = measured.nodes.activation[features].astype(np.float64)
    influence = measured.influence[features]
    described = {
        "activation": activation,
        "influence": influence,
        "cumulative": measured.cumulative[features],
        "kept_activation": activation[kept],
        "kept_influence": influence[kept],
    }
    found = {
        f"node.{name}_{statistic}": value
        for name, values in described.items()
        for statistic, value in summary(values).items()
    }
    total, ordered = influence.sum(), -np.sort(-influence)
    layer = measured.nodes.layer[features]
    found |= {
        "node.weighted_activation": ratio(activation @ influence, total),
        "node.depth": ratio(layer @ influence, total * max(1, measured.n_layers - 1)),
        "node.entropy": entropy(influence),
        "node.top1_share": ratio(ordered[:1].sum(), total),
        "node.top5_share": ratio(ordered[:5].sum(), total),
    }
    return found | _by_layer(measured, layer, kept, influence)


def _by_layer(
    measured: MeasuredGraph, layer: np.ndarray, kept: np.ndarray, influence: np.ndarray
) -> dict[str, float]:
    size = measured.n_layers
    active = np.bincount(layer, minlength=size)
    of_kept, held = np.bincount(layer[kept], minlength=size), np.bincount(layer, influence, size)
    found = {}
    for number in range(size):
        found[f"node.active_{number}"] = float(active[number])
        found[f"node.active_per_token_{number}"] = float(active[number]) / measured.n_tokens
        found[f"node.active_share_{number}"] = ratio(active[number], active.sum())
        found[f"node.kept_share_{number}"] = ratio(of_kept[number], of_kept.sum())
        found[f"node.influence_share_{number}"] = ratio(held[number], held.sum())
    return found


NODE = Family(about="activations and influence", definitions=DEFINITIONS, measure=_measure)
