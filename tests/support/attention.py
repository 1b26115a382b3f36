"""Attention records as `attribution.attention.explain` writes them, with made-up figures."""

from typing import Any

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, LOGIT, NODE_KINDS, TOKEN

CONSTANT = {"kind": "constant"}


def name_of(graph: AttributionGraph, node: int) -> dict[str, Any]:
    """A node as a record names it."""
    nodes = graph.nodes
    place = {name: int(getattr(nodes, name)[node]) for name in ("layer", "position", "index")}
    kind = NODE_KINDS[nodes.kind[node]]
    return {"kind": kind} | {name: value for name, value in place.items() if value >= 0}


def agreement(n: int) -> dict[str, Any]:
    return {
        "n": n,
        "frozen_max_error": 2e-6,
        "spearman_real": 0.61,
        "spearman_real_interval": [0.22, 0.83],
        "spearman_random": 0.05,
        "spearman_random_interval": [-0.4, 0.5],
        "spearman_real_answered": 0.87,
        "spearman_real_answered_interval": [0.7, 0.95],
        "spearman_random_answered": None,
        "spearman_random_answered_interval": None,
    }


def attention_record(graph: AttributionGraph) -> dict[str, Any]:
    """Two heads: 1.0 with a check, 0.1 without; the likeliest logit's two strongest inputs."""
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    feature, other = np.flatnonzero(graph.nodes.is_kind(FEATURE))[[0, 1]].tolist()
    token = int(np.flatnonzero(graph.nodes.is_kind(TOKEN))[1])
    mine = np.flatnonzero(graph.edges.target == logit)
    mine = mine[np.argsort(-np.abs(graph.edges.weight[mine]), kind="stable")][:2]
    edges = [
        {
            "source": name_of(graph, int(graph.edges.source[edge])),
            "target": name_of(graph, logit),
            "weight": float(graph.edges.weight[edge]),
            "residual": 0.25,
            "heads": [
                {"layer": 1, "head": 0, "loading": 1.5, "query": 3},
                {"layer": 0, "head": 1, "loading": -0.5, "query": 3},
                {"layer": 2, "head": 3, "loading": 0.125, "query": 3},
            ],
            "other_heads": 0.0625,
        }
        for edge in mine.tolist()
    ]
    removal = {
        "source": name_of(graph, feature),
        "predicted": -1.25,
        "predicted_answered": -0.875,
        "frozen": -1.25,
        "real": -0.75,
        "random_real": 0.5,
        "probability_change": -0.1,
        "random_probability_change": 0.02,
    }
    qk = {
        "query": 3,
        "key": 1,
        "probability": 0.625,
        "score": 4.5,
        "explained": 2.75,
        "contrast": True,
        "pairs": [
            {"query": name_of(graph, feature), "key": CONSTANT, "value": 1.75, "share": 0.4},
            {
                "query": name_of(graph, other),
                "key": {"kind": "feature", "layer": 0, "position": 1, "index": 999_999},
                "value": -0.875,
                "share": 0.2,
            },
        ],
        "query_sources": [{"source": name_of(graph, feature), "value": 2.5, "share": 0.5}],
        "key_sources": [{"source": name_of(graph, token), "value": 3.5, "share": 0.7}],
        "constant_share": 0.41,
        "error_share": 0.07,
    }
    return {
        "influence_covered": 0.9,
        "residual_share": 0.55,
        "edges": edges,
        "heads": [
            {
                "layer": 1,
                "head": 0,
                "share": 0.3,
                "attention_share": 0.8,
                "qk": qk | {"check": agreement(1) | {"rows": [removal]}},
            },
            {
                "layer": 0,
                "head": 1,
                "share": 0.1,
                "attention_share": 0.9,
                "qk": qk | {"check": None, "contrast": False},
            },
        ],
        "check": agreement(12),
    }
