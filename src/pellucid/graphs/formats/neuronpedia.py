"""The JSON form of an attribution graph that circuit-tracer and Neuronpedia read.

`{metadata, qParams, nodes, links}`; the field list is Neuronpedia's `graph-schema.json` plus what
circuit-tracer's page uses. Bias nodes and target values have no place there and are left out.
Error nodes get circuit-tracer 0.5.1's ids (`{layer}_-1_{pos}`); the earlier `0_{layer}_{pos}`,
which a layer-0 feature can also have, is read but not written.
"""

import math
import re
from typing import Any

import numpy as np

from pellucid.core.errors import GraphError
from pellucid.core.manifest import software_versions
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import cumulative_influence, surviving
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN, Edges, NodeTable

FEATURE_TYPES = {
    FEATURE: "cross layer transcoder",  # the format's word for per-layer transcoders too
    ERROR: "mlp reconstruction error",
    TOKEN: "embedding",
    LOGIT: "logit",
}
KIND_OF_TYPE = {name: kind for kind, name in FEATURE_TYPES.items()}
NAME = re.compile(r"[A-Za-z0-9_.-]+")
LOGIT_TEXT = re.compile(r'Output "(.*)" \(p=[\d.]+\)', re.DOTALL)
REQUIRED = {
    "metadata": ("slug", "scan", "prompt_tokens", "prompt"),
    "nodes": ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"),
    "links": ("source", "target", "weight"),
}
MALFORMED = (AttributeError, LookupError, OverflowError, TypeError, ValueError)


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
    keep_edges = None
    if node_threshold is None or edge_threshold is None:
        keep_nodes = graph.nodes.kind != BIAS
    else:
        keep_nodes, keep_edges = surviving(graph, node_threshold, edge_threshold)
    cumulative = cumulative_influence(influence(graph))[keep_nodes]
    part = graph.subgraph(keep_nodes, keep_edges)
    nodes = [_node(part, number, float(cumulative[number])) for number in range(len(part.nodes))]
    metadata: dict[str, Any] = {
        "slug": slug,
        "scan": scan,
        "transcoder_list": [],
        "prompt_tokens": graph.tokens,
        "prompt": graph.prompt,
        "schema_version": 1,
        "info": {"generator": {"name": "pellucid", "version": software_versions()["pellucid"]}},
    }
    if node_threshold is not None:
        metadata["node_threshold"] = node_threshold
        metadata["pruning_settings"] = {
            "node_threshold": node_threshold,
            "edge_threshold": edge_threshold,
        }
    return {
        "metadata": metadata,
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": _links(part, [node["node_id"] for node in nodes]),
    }


def _node(graph: AttributionGraph, number: int, cumulative: float) -> dict[str, Any]:
    table = graph.nodes
    kind, layer = int(table.kind[number]), int(table.layer[number])
    position, index = int(table.position[number]), int(table.index[number])
    probability, label = _short(table.probability[number]), table.label[number]
    place: dict[str, Any]
    if kind == FEATURE:
        place = {
            "node_id": f"{layer}_{index}_{position}",
            "feature": cantor(layer, index),
            "layer": str(layer),
            "jsNodeId": f"{layer}_{index}-0",
            "clerp": label,
            "activation": _short(table.activation[number]),
        }
    elif kind == ERROR:
        place = {
            "node_id": f"{layer}_-1_{position}",
            "feature": -1,
            "layer": str(layer),
            "jsNodeId": f"{layer}_-1-{position}",
            "clerp": label,
        }
    elif kind == TOKEN:
        place = {
            "node_id": f"E_{index}_{position}",
            "feature": position,
            "layer": "E",
            "jsNodeId": f"E_{index}-{position}",
            "clerp": "",  # readers show the prompt token themselves
        }
    else:
        place = {
            "node_id": f"{layer + 1}_{index}_{position}",
            "feature": index,
            "layer": str(layer + 1),
            "jsNodeId": f"L_{index}-{position}",
            "clerp": f'Output "{label}" (p={probability:.3f})',
        }
    first_logit = number == int(np.argmax(table.kind == LOGIT))
    return {
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
    edges = graph.edges
    rows = zip(edges.source.tolist(), edges.target.tolist(), edges.weight, strict=True)
    return [
        {"source": ids[source], "target": ids[target], "weight": _short(weight)}
        for source, target, weight in rows
    ]


def _short(value: np.floating) -> float:
    """A float32 with the nine digits that suffice to restore it exactly."""
    return float(f"{value:.9g}")


def from_neuronpedia(record: Any) -> AttributionGraph:
    """Read a graph that circuit-tracer, Neuronpedia or `to_neuronpedia` wrote.

    The format does not hold target values (NaN here), bias nodes, scores or the causal check.

    Raises:
        GraphError: a required field is missing or malformed, two nodes share an id, or a link
            names an unknown node.
    """
    _check_fields(record)
    metadata = record["metadata"]
    tokens = [str(token) for token in metadata["prompt_tokens"]]
    try:
        rows = [_read_node(node, tokens) for node in record["nodes"]]
    except MALFORMED as error:
        raise GraphError(f"a node of the graph JSON cannot be read: {error}") from error
    n_layers = max((row["layer"] for row in rows if row["kind"] == LOGIT), default=0)
    order = sorted(range(len(rows)), key=lambda number: _sort_key(rows[number]))
    number_of: dict[str, int] = {}
    for new, old in enumerate(order):
        node_id = record["nodes"][old]["node_id"]
        if node_id in number_of:
            raise GraphError(
                f"two nodes of the graph JSON share the id {node_id!r}, so its links are "
                "ambiguous; write the file again with circuit-tracer 0.5.1 or later, or pellucid"
            )
        number_of[node_id] = new
    columns: dict[str, Any] = {name: [rows[old][name] for old in order] for name in rows[0]}
    return AttributionGraph(
        nodes=NodeTable(**columns),
        edges=_read_links(record["links"], number_of),
        tokens=tokens,
        prompt=str(metadata["prompt"]),
        n_layers=n_layers,
        target_values=np.full(len(rows), np.nan),
        metadata={"neuronpedia": {name: metadata[name] for name in metadata if name != "prompt"}},
    )


def _check_fields(record: Any) -> None:
    if not isinstance(record, dict):
        raise GraphError(f"graph JSON is a {type(record).__name__}, not an object; check the file")
    for part, names in REQUIRED.items():
        items = record.get(part)
        entries = [items] if part == "metadata" else items
        if not isinstance(entries, list) or (part == "nodes" and not entries):
            raise GraphError(f"graph JSON has no {part!r}; check that the file is complete")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise GraphError(f"graph JSON has no usable {part!r}; check the file")
            missing = [name for name in names if name not in entry]
            if missing:
                raise GraphError(f"graph JSON: {part} entry {number} lacks {missing[0]!r}")


def _read_node(node: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    kind = KIND_OF_TYPE.get(node["feature_type"])
    if kind is None:
        raise ValueError(f"feature_type {node['feature_type']!r} is not known")
    _, second, _ = node["node_id"].split("_")
    position = int(node["ctx_idx"])
    layer = -1 if kind == TOKEN else int(node["layer"]) - (kind == LOGIT)
    label = str(node["clerp"] or "")
    if kind == LOGIT:
        match = LOGIT_TEXT.fullmatch(label)
        label = match.group(1) if match else label
    elif kind == TOKEN:
        label = tokens[position]
    return {
        "kind": kind,
        "layer": layer,
        "position": position,
        "index": -1 if kind == ERROR else int(second),
        "activation": _number(node.get("activation")) if kind == FEATURE else 0.0,
        "probability": _number(node.get("token_prob")) if kind == LOGIT else 0.0,
        "label": label,
    }


def _number(value: Any) -> float:
    number = float(value or 0)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _sort_key(row: dict[str, Any]) -> tuple[int, ...]:
    """Our node order; logits keep the file's order."""
    if row["kind"] == LOGIT:
        return (LOGIT, 0, 0, 0)
    return (row["kind"], row["layer"], row["position"], row["index"])


def _read_links(links: list[dict[str, Any]], number_of: dict[str, int]) -> Edges:
    try:
        target = [number_of[link["target"]] for link in links]
        source = [number_of[link["source"]] for link in links]
        weight = np.array([float(link["weight"]) for link in links])
    except KeyError as error:
        raise GraphError(f"a link of the graph JSON names {error}, which is no node") from error
    except MALFORMED as error:
        raise GraphError(f"a link of the graph JSON cannot be read: {error}") from error
    return Edges.from_unsorted(
        target=np.array(target, dtype=np.int64), source=np.array(source, np.int64), weight=weight
    )
