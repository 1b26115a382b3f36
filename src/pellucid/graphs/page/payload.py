"""What the page is given: the part of a graph that matters, as JSON columns."""

from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Bool

from pellucid.graphs.container import json_value
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page.attention import attention_payload
from pellucid.graphs.prune import cumulative_influence, flow_between, surviving
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import BIAS, NODE_KINDS
from pellucid.graphs.trust import trust_statements, verdict

EDGE_THRESHOLD = 0.98


def page_payload(graph: AttributionGraph, *, max_nodes: int, max_edges: int) -> dict[str, Any]:
    """The page's data: kept nodes and edges, what was left out, scores and the causal check."""
    weight = influence(graph)
    cumulative = cumulative_influence(weight)
    node_threshold = _threshold_for(cumulative, max_nodes)
    keep_nodes, keep_edges = surviving(graph, node_threshold, EDGE_THRESHOLD)
    flow = flow_between(graph, keep_nodes)
    ranked = np.argsort(-np.where(keep_edges, flow, 0), kind="stable")
    strongest = ranked[: min(max_edges, int(keep_edges.sum()))]
    shown_edges = np.zeros(len(graph.edges), dtype=bool)
    shown_edges[strongest] = True
    part = graph.subgraph(keep_nodes, shown_edges)
    number = np.cumsum(keep_nodes) - 1
    edges = graph.edges
    return json_value(
        {
            "kinds": NODE_KINDS,
            "prompt": graph.prompt,
            "tokens": graph.tokens,
            "layers": graph.n_layers,
            "nodes": {
                "kind": part.nodes.kind,
                "layer": part.nodes.layer,
                "position": part.nodes.position,
                "index": part.nodes.index,
                "activation": _rounded(part.nodes.activation),
                "probability": _rounded(part.nodes.probability),
                "label": part.nodes.label,
                "influence": _rounded(weight[keep_nodes]),
                "cumulative": _rounded(cumulative[keep_nodes]),
                "value": _rounded(part.target_values),
                "from_bias": _rounded(_row_sums(graph, _from_bias(graph))[keep_nodes]),
                "from_shown": _rounded(_row_sums(graph, shown_edges)[keep_nodes]),
            },
            "edges": {
                "source": number[edges.source[strongest]],
                "target": number[edges.target[strongest]],
                "weight": _rounded(edges.weight[strongest]),
            },
            "whole": {
                "counts": graph.nodes.counts(),
                "edges": len(edges),
                "influence_shown": node_threshold,
                "edge_influence_shown": float(flow[shown_edges].sum() / max(flow.sum(), 1e-30)),
                "edge_threshold": EDGE_THRESHOLD,
            },
            "scores": graph.scores,
            "causal": part.causal and {**part.causal, "downstream": []},
            "verdict": asdict(verdict(graph)),
            "statements": [asdict(statement) for statement in trust_statements(graph)],
            "attention": attention_payload(part),
            "metadata": {k: v for k, v in graph.metadata.items() if k != "attention"},
        }
    )


def _threshold_for(cumulative: np.ndarray, max_nodes: int) -> float:
    """The node threshold that keeps at most about `max_nodes` nodes."""
    if len(cumulative) <= max_nodes:
        return 1.0
    return float(np.sort(cumulative)[max(max_nodes, 1) - 1])


def _from_bias(graph: AttributionGraph) -> Bool[np.ndarray, " E"]:
    return graph.nodes.kind[graph.edges.source] == BIAS


def _row_sums(graph: AttributionGraph, keep: Bool[np.ndarray, " E"]) -> np.ndarray:
    """For every node, the sum of those incoming edges that are kept."""
    weight = np.where(keep, graph.edges.weight, 0).astype(np.float64)
    return np.bincount(graph.edges.target, weight, minlength=len(graph.nodes))


def _rounded(values: np.ndarray) -> list[float]:
    """Five significant digits: enough to read, and a much smaller page."""
    return [float(f"{value:.5g}") for value in values.tolist()]
