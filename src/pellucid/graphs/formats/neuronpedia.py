"""The JSON form of an attribution graph that circuit-tracer and Neuronpedia read.

Error nodes get circuit-tracer 0.5.1's ids (`{layer}_-1_{pos}`); the earlier `0_{layer}_{pos}`,
which a layer-0 feature can also have, is read but not written. See `neuronpedia_schema`.
"""

import re
from typing import Any

import numpy as np

from pellucid.core.errors import GraphError
from pellucid.core.manifest import software_versions
from pellucid.graphs.container import json_value
from pellucid.graphs.formats.neuronpedia_reader import from_neuronpedia
from pellucid.graphs.formats.neuronpedia_schema import (
    EXTRA,
    EXTRA_VERSION,
    FEATURE_TYPES,
    KEPT_FIELDS,
    RECORD,
    logit_text,
    short,
)
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.prune import cumulative_influence, surviving
from pellucid.graphs.scores import influence
from pellucid.graphs.supernodes import KEY, supernodes_of
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN

__all__ = ["cantor", "from_neuronpedia", "to_neuronpedia"]

NAME = re.compile(r"[A-Za-z0-9_.-]+")


def cantor(layer: int, index: int) -> int:
    """One number for a (layer, feature index) pair, by Cantor's pairing."""
    return (layer + index) * (layer + index + 1) // 2 + index


def to_neuronpedia(
    graph: AttributionGraph,
    *,
    slug: str,
    scan: str,
    node_threshold: float | None = 0.8,
    edge_threshold: float | None = 0.98,
) -> dict[str, Any]:
    """The graph as a JSON-able record, pruned as circuit-tracer prunes before writing.

    `from_neuronpedia` gives back the pruned graph; with both thresholds None the whole graph,
    biases too. A graph that was itself read from this format keeps, where nothing is pruned, the
    influence, saved view and descriptions of the file that it came from.

    Args:
        graph: the whole graph; cumulative influence is measured on it, before pruning.
        slug: the graph's name.
        scan: what the transcoders are called; Neuronpedia takes it for the model's id.
        node_threshold: share of node influence to keep; None with `edge_threshold` None keeps all.
        edge_threshold: share of edge influence to keep.

    Raises:
        GraphError: a name with other characters than letters, digits and `_.-`, a threshold
            outside 0..1, or only one of them None.
    """
    for name, text in (("slug", slug), ("scan", scan)):
        if not NAME.fullmatch(text):
            raise GraphError(f"{name} is {text!r}; use only letters, digits, '_', '.' and '-'")
    if (node_threshold is None) != (edge_threshold is None):
        raise GraphError("give both thresholds, or None for both to keep the whole graph")
    keep_nodes, keep_edges = np.ones(len(graph.nodes), dtype=bool), None
    whole = node_threshold is None or edge_threshold is None
    if node_threshold is not None and edge_threshold is not None:
        keep_nodes, keep_edges = surviving(graph, node_threshold, edge_threshold)
    part = graph.subgraph(keep_nodes, keep_edges)
    names = node_names(part)
    read: dict[str, Any] = graph.metadata.get(RECORD, {}) if whole else {}
    earlier = read.get("influence", {})
    cumulative = cumulative_influence(influence(graph))[keep_nodes].tolist()
    shown = np.flatnonzero(part.nodes.kind != BIAS).tolist()
    metadata = read.get("metadata", {}) | _metadata(graph, slug, scan)
    if node_threshold is not None:
        metadata["node_threshold"] = node_threshold
        metadata["pruning_settings"] = {
            "node_threshold": node_threshold,
            "edge_threshold": edge_threshold,
        }
    view = {"pinnedIds": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    groups = [[group.label, *(names[n] for n in group.nodes)] for group in supernodes_of(part)]
    return {
        "metadata": metadata,
        "qParams": view | read.get("qParams", {}) | {"supernodes": groups},
        "nodes": [
            _node(part, number, names[number], earlier.get(names[number], cumulative[number]))
            for number in shown
        ],
        "links": _links(part, names),
        EXTRA: _extra(part, names),
    }


def _metadata(graph: AttributionGraph, slug: str, scan: str) -> dict[str, Any]:
    generator = {"name": "pellucid", "version": software_versions()["pellucid"]}
    earlier = graph.metadata.get(RECORD, {}).get("metadata", {})
    return {
        "slug": slug,
        "scan": scan,
        "transcoder_list": earlier.get("transcoder_list", []),
        "prompt_tokens": graph.tokens,
        "prompt": graph.prompt,
        "schema_version": 1,
        "info": {"generator": generator} | earlier.get("info", {}),
    }


def _node(
    graph: AttributionGraph, number: int, node_id: str, cumulative: float | None
) -> dict[str, Any]:
    table = graph.nodes
    kind, layer = int(table.kind[number]), int(table.layer[number])
    position, index = int(table.position[number]), int(table.index[number])
    probability, label = short(table.probability[number]), table.label[number]
    place: dict[str, Any]
    if kind == FEATURE:
        place = {
            "feature": cantor(layer, index),
            "layer": str(layer),
            "jsNodeId": f"{layer}_{index}-0",
            "clerp": label,
            "activation": short(table.activation[number]),
        }
    elif kind == ERROR:
        place = {
            "feature": -1,
            "layer": str(layer),
            "jsNodeId": f"{layer}_-1-{position}",
            "clerp": label,
        }
    elif kind == TOKEN:
        place = {
            "feature": position,
            "layer": "E",
            "jsNodeId": f"E_{index}-{position}",
            "clerp": "",  # readers show the prompt token themselves
        }
    else:
        place = {
            "feature": index,
            "layer": str(layer + 1),
            "jsNodeId": f"L_{index}-{node_id.rsplit('_', 1)[1]}",
            "clerp": logit_text(label, probability),
        }
    first_logit = number == int(np.argmax(table.kind == LOGIT))
    return {
        "node_id": node_id,
        **place,
        "ctx_idx": position,
        "feature_type": FEATURE_TYPES[kind],
        "token_prob": probability,
        "is_target_logit": kind == LOGIT and first_logit,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "influence": None if kind == LOGIT else cumulative,
        "activation": place.get("activation"),
    }


def _links(graph: AttributionGraph, ids: list[str]) -> list[dict[str, Any]]:
    edges = graph.edges.select(graph.nodes.kind[graph.edges.source] != BIAS)
    rows = zip(edges.source.tolist(), edges.target.tolist(), edges.weight, strict=True)
    return [
        {"source": ids[source], "target": ids[target], "weight": short(weight)}
        for source, target, weight in rows
    ]


def _extra(graph: AttributionGraph, ids: list[str]) -> dict[str, Any]:
    """What the format has no place for; node tables by name, everything else as it is."""
    nodes, edges = graph.nodes, graph.edges
    biases = np.flatnonzero(nodes.kind == BIAS).tolist()
    valued = np.flatnonzero(np.isfinite(graph.target_values)).tolist()
    active = np.flatnonzero((nodes.kind != FEATURE) & (nodes.activation != 0)).tolist()
    named = [
        number
        for number in np.flatnonzero(nodes.kind == TOKEN).tolist()
        if nodes.label[number] != graph.tokens[nodes.position[number]]
    ]
    from_bias = edges.select(nodes.kind[edges.source] == BIAS)
    metadata = {key: graph.metadata[key] for key in graph.metadata if key not in (KEY, RECORD)}
    return json_value(
        {
            "schema_version": EXTRA_VERSION,
            "n_layers": graph.n_layers,
            "metadata": metadata,
            "biases": [
                {
                    "node_id": ids[number],
                    "layer": int(nodes.layer[number]),
                    "ctx_idx": int(nodes.position[number]),
                    "clerp": nodes.label[number],
                }
                for number in biases
            ],
            "bias_links": [
                {"source": ids[source], "target": ids[target], "weight": short(weight)}
                for source, target, weight in zip(
                    from_bias.source, from_bias.target, from_bias.weight, strict=True
                )
            ],
            "target_values": {ids[n]: short(graph.target_values[n]) for n in valued},
            "activations": {ids[n]: short(nodes.activation[n]) for n in active},
            "token_labels": {ids[n]: nodes.label[n] for n in named},
            **{name: getattr(graph, name) for name in KEPT_FIELDS},
        }
    )
