"""The attention behind a graph: which heads carry its strongest edges, and why they look there.

`explain_attention` splits the strongest edges by head (`heads.py`), takes the heads that carry most
of their influence, and attributes the attention that carries it to pairs of sources (`qk.py`),
each with a causal check (`qk_check.py`). What it finds is a JSON-able record, which a graph keeps
in `metadata["attention"]` and its page shows.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pellucid.attribution.attention.heads import HeadLoadings, Sources, head_loadings
from pellucid.attribution.attention.layer_scores import layer_scores
from pellucid.attribution.attention.qk import qk_attribution
from pellucid.attribution.attention.qk_check import check_qk, pooled
from pellucid.attribution.attention.sources import SourceKey, active_row
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.targets import Targets, concatenate, feature_targets
from pellucid.core.errors import ConfigError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import flow_between, surviving
from pellucid.graphs.tables import BIAS, LOGIT, NODE_KINDS

HEADS_LISTED = 4
PAIRS_LISTED = 8


@torch.no_grad()
def explain_attention(
    linear: LinearModel,
    table: SourceTable,
    graph: AttributionGraph,
    logits: Targets,
    *,
    edges: int = 200,
    heads: int = 6,
    check: bool = True,
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
    seed: int = 0,
) -> AttributionGraph:
    """The graph with what is behind its strongest edges in `metadata["attention"]`.

    Args:
        linear: the affine map the graph was built from.
        table: its columns.
        graph: the graph, unpruned.
        logits: the rows of the graph's logit nodes, in their order.
        edges: how many edges to split by head: those of the pruned graph with most influence.
        heads: how many heads to explain: those that carry most of these edges' influence.
        check: remove the top features of every explained score, and read it again.
        node_threshold, edge_threshold: see `pellucid.graphs.prune.prune`.
        seed: of the control features.

    Raises:
        ConfigError: `edges` or `heads` is below 1.
    """
    for name, value in (("edges", edges), ("heads", heads)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; give a number of at least 1")
    chosen, flow, covered = _strongest_edges(graph, edges, node_threshold, edge_threshold)
    split = _split(linear, graph, logits, chosen)
    shares = _shares(split, flow)
    weight = graph.edges.weight[chosen].astype(np.float64)
    largest = max(float(np.abs(weight).max(initial=0.0)), 1e-12)
    explained = _head_records(linear, table, graph, chosen, split, shares, heads, check, seed)
    record = {
        "split_edges": len(chosen),
        "influence_covered": covered,
        "residual_share": float(1 - shares.sum()),
        "max_error": float(np.abs(split.totals().double().numpy() - weight).max(initial=0.0))
        / largest,
        "edges": [_edge_record(graph, split, number, i) for i, number in enumerate(chosen)],
        "heads": explained,
        "check": pooled([head["qk"]["check"] for head in explained], seed=seed),
    }
    return replace(graph, metadata=graph.metadata | {"attention": record})


def _strongest_edges(
    graph: AttributionGraph, count: int, node_threshold: float, edge_threshold: float
) -> tuple[Int64[np.ndarray, " n"], np.ndarray, float]:
    """Edges of the pruned graph with most influence, that influence, and its share of all."""
    keep_nodes, keep_edges = surviving(graph, node_threshold, edge_threshold)
    flow = np.where(keep_edges, flow_between(graph, keep_nodes), 0.0)
    flow[graph.nodes.kind[graph.edges.source] == BIAS] = 0.0
    chosen = np.argsort(-flow, kind="stable")[:count]
    chosen = chosen[flow[chosen] > 0]
    return chosen, flow[chosen], float(flow[chosen].sum() / max(flow.sum(), 1e-30))


def _split(
    linear: LinearModel, graph: AttributionGraph, logits: Targets, chosen: np.ndarray
) -> HeadLoadings:
    target_nodes, target = np.unique(graph.edges.target[chosen], return_inverse=True)
    source_nodes, source = np.unique(graph.edges.source[chosen], return_inverse=True)
    return head_loadings(
        linear,
        _targets(linear, graph, logits, target_nodes),
        Sources.of(linear, [node_key(graph, node) for node in source_nodes.tolist()]),
        torch.from_numpy(target),
        torch.from_numpy(source),
    )


def node_key(graph: AttributionGraph, node: int) -> SourceKey:
    """A node by what it is, which is the same in every subgraph."""
    nodes = graph.nodes
    return SourceKey(
        NODE_KINDS[nodes.kind[node]],
        int(nodes.layer[node]),
        int(nodes.position[node]),
        int(nodes.index[node]),
    )


def _targets(
    linear: LinearModel, graph: AttributionGraph, logits: Targets, nodes: np.ndarray
) -> Targets:
    """The rows of some feature and logit nodes."""
    first_logit = int(np.argmax(graph.nodes.is_kind(LOGIT)))
    parts = []
    for node in nodes.tolist():
        key = node_key(graph, node)
        if key.kind == "logit":
            parts.append(logits.select(torch.tensor([node - first_logit])))
            continue
        parts.append(feature_targets(linear, key.layer, active_row(linear, key)))
    return concatenate(parts) if parts else logits.select(torch.arange(0))


def _shares(split: HeadLoadings, flow: np.ndarray) -> Tensor:
    """The share of the edges' influence that each head carries, [E, L, H].

    An edge's influence is divided among its parts by their sizes, so that with what the residual
    stream carries the shares of all heads sum to one.
    """
    sizes = split.heads.double().abs()
    whole = sizes.sum(dim=(1, 2)) + split.residual.double().abs()
    influence = torch.from_numpy(flow / max(flow.sum(), 1e-30))
    return sizes * (influence / whole.clamp_min(1e-30))[:, None, None]


def _edge_record(
    graph: AttributionGraph, split: HeadLoadings, number: int, row: int
) -> dict[str, Any]:
    loadings = split.heads[row].flatten()
    n_heads = split.heads.shape[2]
    listed = loadings.abs().topk(min(HEADS_LISTED, len(loadings))).indices
    listed = listed[loadings[listed] != 0]
    return {
        "source": node_key(graph, int(graph.edges.source[number])).to_json(),
        "target": node_key(graph, int(graph.edges.target[number])).to_json(),
        "weight": float(graph.edges.weight[number]),
        "residual": float(split.residual[row]),
        "heads": [
            {
                "layer": i // n_heads,
                "head": i % n_heads,
                "loading": float(loadings[i]),
                "query": int(split.query[row].flatten()[i]),
            }
            for i in listed.tolist()
        ],
        "other_heads": float(loadings.sum() - loadings[listed].sum()),
    }


def _head_records(
    linear: LinearModel,
    table: SourceTable,
    graph: AttributionGraph,
    chosen: np.ndarray,
    split: HeadLoadings,
    shares: Tensor,
    count: int,
    check: bool,
    seed: int,
) -> list[dict[str, Any]]:
    """The heads that carry most, each with its strongest attention explained."""
    carried = shares.sum(dim=0)
    n_heads = carried.shape[1]
    order = carried.flatten().argsort(descending=True, stable=True)[:count].tolist()
    key_positions = torch.from_numpy(
        graph.nodes.position[graph.edges.source[chosen]].astype(np.int64)
    )
    records = []
    for layer, head in (divmod(number, n_heads) for number in order):
        if carried[layer, head] == 0:
            continue
        query, key, share = _strongest_attention(
            shares[:, layer, head], split.query[:, layer, head], key_positions
        )
        records.append(
            {
                "layer": layer,
                "head": head,
                "share": float(carried[layer, head]),
                "attention_share": share / float(carried[layer, head]),
                "qk": _qk_record(linear, table, layer, head, query, key, check, seed),
            }
        )
    return records


def _strongest_attention(shares: Tensor, queries: Tensor, keys: Tensor) -> tuple[int, int, float]:
    """The query and key through which most of a head's influence passes, and how much."""
    length = int(max(queries.max(), keys.max())) + 1
    passing = queries >= 0
    totals = shares.new_zeros(length * length)
    totals.index_add_(0, queries[passing] * length + keys[passing], shares[passing])
    best = int(totals.argmax())
    return best // length, best % length, float(totals[best])


def _qk_record(
    linear: LinearModel,
    table: SourceTable,
    layer: int,
    head: int,
    query: int,
    key: int,
    check: bool,
    seed: int,
) -> dict[str, Any]:
    scores = layer_scores(linear, layer)
    contrast = len(scores.others(head, query, key)) > 0
    attribution = qk_attribution(
        linear, table, layer, head, query, key, contrast=contrast, scores=scores
    )
    record = attribution.to_json(PAIRS_LISTED)
    checked = check_qk(linear, scores, attribution, seed=seed) if check and contrast else None
    return record | {"check": checked}
