"""Family `global`: the whole graph (Zhao et al. 2025), and how far features explain it."""

import numpy as np

from pellucid.graphs.scores import scores
from pellucid.graphs.tables import ERROR, FEATURE, LOGIT
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, ratio

_TOPK = " With TopK dictionaries this is the number of tokens in disguise."
_BOUND = "{} of the whole graph when everything beyond the cap goes to {} (0 if not recorded)"

DEFINITIONS = (
    Definition("global.tokens", "tokens up to the graph's last position", "1..", "length"),
    Definition(
        "global.active_features",
        "active features of the whole prompt, before any cap (those of the graph if unknown)."
        + _TOPK,
        "0..",
        "length",
    ),
    Definition(
        "global.active_per_token", "`global.active_features` by tokens; constant with TopK", "0.."
    ),
    Definition("global.features", "feature nodes of the graph, at most its cap", "0..", "length"),
    Definition("global.kept_features", "features that pruning keeps", "0..", "length"),
    Definition("global.kept_errors", "errors that pruning keeps", "0..", "length"),
    Definition("global.kept_edges", "edges that pruning keeps", "0..", "length"),
    Definition("global.kept_feature_share", "share of the graph's features that pruning keeps"),
    Definition(
        "global.kept_error_share", "share of the graph's errors that pruning keeps", stands="length"
    ),
    Definition(
        "global.kept_edge_share", "share of the graph's edges that pruning keeps", stands="length"
    ),
    Definition("global.kept_features_per_token", "features kept, by tokens", "0..", "length"),
    Definition("global.kept_errors_per_token", "`global.kept_errors` by tokens", "0.."),
    Definition("global.kept_feature_part", "features among the features and errors kept"),
    Definition(
        "global.target_probability",
        "weight of the likeliest explained logit: its probability, or 1 for a chosen token",
        stands="confidence",
    ),
    Definition(
        "global.target_entropy",
        "entropy of the explained logits' probabilities and of the rest as one, in nats",
        "0..",
        "confidence",
    ),
    Definition("global.logits", "how many logits are explained", "1..", "confidence"),
    Definition(
        "global.target_value",
        "explained logits minus the mean logit (or the logit difference), weighted by probability",
        "any",
        "confidence",
    ),
    Definition("global.replacement", "share of the inputs' influence that tokens hold, not errors"),
    Definition("global.completeness", "share of nodes' inputs that does not come from errors"),
    Definition("global.replacement_low", _BOUND.format("replacement", "errors")),
    Definition("global.replacement_high", _BOUND.format("replacement", "tokens")),
    Definition("global.completeness_low", _BOUND.format("completeness", "errors")),
    Definition("global.completeness_high", _BOUND.format("completeness", "features")),
    Definition(
        "global.unexplored",
        "share of influence that waits at features beyond the cap; 0 if unknown",
    ),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    graph, nodes = measured.graph, measured.nodes
    kept_nodes, kept_edges = measured.pruned
    features, errors = measured.is_kind(FEATURE), measured.is_kind(ERROR)
    n_features, n_errors = float(features.sum()), float(errors.sum())
    kept_features = float((kept_nodes & features).sum())
    kept_errors = float((kept_nodes & errors).sum())
    tokens, n_edges = float(measured.n_tokens), float(kept_edges.sum())
    active = float(graph.metadata.get("active_features", n_features))
    return {
        "global.tokens": tokens,
        "global.active_features": active,
        "global.active_per_token": active / tokens,
        "global.features": n_features,
        "global.kept_features": kept_features,
        "global.kept_errors": kept_errors,
        "global.kept_edges": n_edges,
        "global.kept_feature_share": ratio(kept_features, n_features),
        "global.kept_error_share": ratio(kept_errors, n_errors),
        "global.kept_edge_share": ratio(n_edges, len(graph.edges)),
        "global.kept_features_per_token": kept_features / tokens,
        "global.kept_errors_per_token": kept_errors / tokens,
        "global.kept_feature_part": ratio(kept_features, kept_features + kept_errors),
        "global.target_value": float(measured.probability @ nodes.activation),
        **_prediction(nodes.probability[nodes.kind == LOGIT].astype(np.float64)),
        **_explained(measured),
    }


def _prediction(probability: np.ndarray) -> dict[str, float]:
    rest = max(0.0, 1 - probability.sum())
    held = np.append(probability, rest)
    held = held[held > 0]
    return {
        "global.target_probability": float(probability.max(initial=0)),
        "global.target_entropy": float(max(0.0, -(held * np.log(held)).sum())),
        "global.logits": float(len(probability)),
    }


def _explained(measured: MeasuredGraph) -> dict[str, float]:
    graph = measured.graph
    recorded = graph.scores
    if not {"replacement", "completeness"} <= set(recorded):
        recorded = {**scores(graph)._asdict(), **recorded}
    names = ("replacement", "completeness")
    ends = [name + end for name in names for end in ("", "_low", "_high")]
    found = {f"global.{name}": _finite(recorded.get(name, 0.0)) for name in ends}
    unexplored = graph.metadata.get("unexplored_influence", 0.0)
    return found | {"global.unexplored": _finite(unexplored)}


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else 0.0


GLOBAL = Family(about="the whole graph", definitions=DEFINITIONS, measure=_measure)
