"""Random and hand-made attribution graphs for the graph tests."""

from typing import Any

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN, Edges, NodeTable


def random_graph(
    seed: int,
    *,
    n_layers: int = 3,
    n_tokens: int = 4,
    features_per_cell: int = 2,
    n_logits: int = 3,
    density: float = 0.6,
    n_biases: int = 2,
) -> AttributionGraph:
    """A valid graph: layered, causal in position, weights of both signs, complete rows."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, int]] = []
    for layer in range(n_layers):
        for position in range(n_tokens):
            index = np.sort(rng.choice(1000, features_per_cell, replace=False))
            rows += [(FEATURE, layer, position, int(i)) for i in index]
    rows += [(ERROR, layer, p, -1) for layer in range(n_layers) for p in range(n_tokens)]
    rows += [(TOKEN, -1, p, int(rng.integers(50))) for p in range(n_tokens)]
    rows += [(BIAS, layer, -1, -1) for layer in range(-1, n_biases - 1)]
    vocabulary = rng.choice(50, n_logits, replace=False)
    rows += [(LOGIT, n_layers, n_tokens - 1, int(v)) for v in vocabulary]
    kind, layer, position, index = (np.array(column) for column in zip(*rows, strict=True))
    probability = np.zeros(len(rows))
    probability[kind == LOGIT] = np.sort(rng.dirichlet(np.ones(n_logits)))[::-1] * 0.96
    nodes = NodeTable(
        kind=kind,
        layer=layer,
        position=position,
        index=index,
        activation=np.where(kind == FEATURE, rng.uniform(0.1, 3, len(rows)), 0),
        probability=probability,
        label=[f"token {row[3]}" if row[0] in (TOKEN, LOGIT) else "" for row in rows],
    )
    rank = nodes.rank()
    is_target = np.isin(kind, (FEATURE, LOGIT))
    allowed = (rank[:, None] > rank) & (position[:, None] >= position) & is_target[:, None]
    allowed &= kind != LOGIT
    target, source = np.nonzero(allowed & (rng.random(allowed.shape) < density))
    edges = Edges(
        target=target, source=source, weight=rng.normal(size=len(target)).astype(np.float32)
    )
    sums = np.bincount(target, edges.weight, minlength=len(rows))
    return AttributionGraph(
        nodes=nodes,
        edges=edges,
        tokens=[f"token {i}" for i in index[kind == TOKEN]],
        prompt="a prompt",
        n_layers=n_layers,
        target_values=np.where(is_target, sums, np.nan),
        metadata={"model": "tiny"},
    )


def causal_record(graph: AttributionGraph, seed: int = 0, features: int = 12) -> dict[str, Any]:
    """A causal check's record as `attribution.checks.causal` writes it, with made-up effects."""
    rng = np.random.default_rng(seed)
    names = np.flatnonzero(graph.nodes.is_kind(FEATURE))[:features]
    rows = []
    for node in names.tolist():
        effect, control = rng.normal(), rng.normal()
        for factor in (0.0, 2.0):
            sign = factor - 1
            rows.append(
                {
                    "node": node,
                    "layer": int(graph.nodes.layer[node]),
                    "position": int(graph.nodes.position[node]),
                    "feature": int(graph.nodes.index[node]),
                    "factor": factor,
                    "predicted_direct": sign * effect * 0.7,
                    "predicted_total": sign * effect,
                    "frozen": sign * effect * 0.7,
                    "attention_frozen": sign * effect * 0.98,
                    "real": sign * effect + rng.normal() * 0.15,
                    "random_real": control * 0.25,
                    "predicted_norms": sign * effect,
                    "contrast": {
                        "predicted_total": sign * effect * 2,
                        "predicted_norms": sign * effect * 2,
                        "real": sign * effect * 2 + rng.normal() * 0.1,
                        "random_real": control * 0.5,
                    },
                }
            )
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    return {
        "frozen_max_error": 3.1e-6,
        "spearman_attention_frozen": 0.99,
        "spearman_attention_frozen_interval": [0.97, 1.0],
        "spearman_real": 0.93,
        "spearman_real_interval": [0.81, 0.98],
        "spearman_random": 0.04,
        "spearman_random_interval": [-0.2, 0.3],
        "sign_agreement_attention_frozen": 1.0,
        "sign_agreement_real": 0.96,
        "sign_agreement_random": 0.5,
        "median_effect_ratio": 4.2,
        "n": len(rows),
        "target": {
            "position": int(graph.nodes.position[logit]),
            "token_id": int(graph.nodes.index[logit]),
            "label": graph.nodes.label[logit],
        },
        "rows": rows,
    } | _by_depth(graph, rng)


def _by_depth(graph: AttributionGraph, rng: np.random.Generator) -> dict[str, Any]:
    """The parts of a causal record that say at which depth it holds."""

    def figures(*names: str) -> dict[str, Any]:
        return {
            key: value
            for name in names
            for key, value in (
                (f"spearman_{name}", 0.1 if "random" in name else 0.85),
                (f"spearman_{name}_interval", [-0.2, 0.3] if "random" in name else [0.7, 0.95]),
                (f"sign_agreement_{name}", 0.5 if "random" in name else 0.9),
            )
        }

    target = int(np.flatnonzero(graph.nodes.is_kind(FEATURE))[-1])
    place = {
        "layer": int(graph.nodes.layer[target]),
        "position": int(graph.nodes.position[target]),
        "feature": int(graph.nodes.index[target]),
    }
    names = ("attention_frozen", "real", "random", "norms", "norms_random")
    record = {"source_depth": "all", "features": 6, "n": 12, "frozen_max_error": 2e-6}
    return {
        "by_depth": [
            {"target": "features", "layer": place["layer"]} | record | figures(*names),
            {"target": "contrast", "layer": graph.n_layers}
            | record
            | {"frozen_max_error": None}
            | figures(*names),
        ],
        "answers": [
            {"target": kind, "answer": answer, "features": 6, "n": 12, "size_ratio": 0.8}
            | figures("real", "random")
            for kind in ("logit", "contrast", "features")
            for answer in ("features", "norms", "mlps", "attention")
        ],
        "downstream": [
            {
                "layer": 0,
                "position": 0,
                "feature": number,
                "factor": factor,
                "target": place,
                "value": 2.0,
                "predicted_direct": effect,
                "predicted_total": effect,
                "predicted_norms": effect,
                "frozen": effect,
                "attention_frozen": effect,
                "real": effect * 0.9,
                "random_real": float(rng.normal()),
            }
            for number in range(3)
            for factor in (0.0, 2.0)
            for effect in [float(rng.normal())]
        ],
    }


def group_check_record(accepted: bool = True) -> dict[str, Any]:
    """A tested group as `pellucid.attribution.checks.groups` records it."""
    errors = dict.fromkeys(("attention_frozen", "real", "norms", "parts"), 0.2)
    return {f"error_{name}": value for name, value in errors.items()} | {
        "name": "group 1",
        "features": [[0, 1, 5], [0, 1, 9]],
        "accepted": accepted,
        "reason": "as predicted" if accepted else "not as predicted",
        "error_frozen": None,
        "p": 0.025,
        "controls": 39,
        "contrast": {"predicted": -1.0, "predicted_norms": -0.9, "parts": -1.0, "real": -0.8},
        "readings": 7,
    }
