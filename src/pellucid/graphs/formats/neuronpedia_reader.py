"""Reading the JSON that circuit-tracer, Neuronpedia and `to_neuronpedia` write.

What is read comes from others: everything is checked, and whatever is wrong is one `GraphError`.
"""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.core.errors import GraphError
from pellucid.graphs.formats.neuronpedia_ids import link_ends
from pellucid.graphs.formats.neuronpedia_schema import (
    EXTRA,
    EXTRA_VERSION,
    KEPT_FIELDS,
    KIND_OF_TYPE,
    RECORD,
    REQUIRED,
)
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.supernodes import KEY
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN, Edges, NodeTable

LOGIT_TEXT = re.compile(r'Output "(.*)" \(p=[\d.]+\)', re.DOTALL)
LOGIT_CHANCE = re.compile(r"\(p=(0?\.\d+|[01](?:\.\d+)?)\)\s*$")
MALFORMED = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
MAX_BYTES = 2**30
MAX_LAYERS = 10_000
OWN_FIELDS = ("slug", "scan", "prompt", "prompt_tokens", "schema_version")


def read_neuronpedia(path: str | Path, *, max_bytes: int = MAX_BYTES) -> AttributionGraph:
    """Read a graph from a JSON file; see `from_neuronpedia`.

    Args:
        path: the file.
        max_bytes: refuse a larger file: it is read whole.

    Raises:
        GraphError: missing, larger than `max_bytes`, not JSON, or not such a graph.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise GraphError(
                f"{path} has {size} bytes, the limit is {max_bytes}; prune the graph before "
                "writing it, or raise max_bytes"
            )
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{path} is not JSON that can be read ({error}); restore it") from error
    try:
        return from_neuronpedia(record)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error


def from_neuronpedia(record: Any) -> AttributionGraph:
    """Read a graph that circuit-tracer, Neuronpedia or `to_neuronpedia` wrote.

    What only this format needs (influence, saved view, descriptions) is kept in the metadata
    under "neuronpedia", supernodes under "supernodes". Files of other programs hold no target
    values (NaN here), bias nodes, scores or causal check. Both schemes of error ids are read.

    Raises:
        GraphError: a required field is missing or malformed, two nodes share an id that does not
            tell them apart, a link names an unknown node, or a later pellucid wrote the file.
    """
    _check_fields(record)
    extra = _extra(record)
    tokens = list(record["metadata"]["prompt_tokens"])
    entries = [*record["nodes"], *extra["biases"]]
    try:
        rows = [_read_node(node, tokens, extra) for node in record["nodes"]]
        rows += [_read_bias(node) for node in extra["biases"]]
        links = [
            (str(link["target"]), str(link["source"]), _number(link["weight"]))
            for link in [*record["links"], *extra["bias_links"]]
        ]
    except MALFORMED as error:
        raise GraphError(f"the graph JSON cannot be read: {_one_line(error)}") from error
    ids = [entry["node_id"] for entry in entries]
    order = sorted(range(len(rows)), key=lambda number: _sort_key(rows[number]))
    kinds, layers = [row["kind"] for row in rows], [row["layer"] for row in rows]
    ends = link_ends(ids, kinds, layers, [link[:2] for link in links])
    new = np.empty(len(rows), dtype=np.int64)
    new[order] = np.arange(len(rows))
    pairs = new[np.array(ends, dtype=np.int64).reshape(-1, 2)]
    columns: dict[str, Any] = {name: [rows[old][name] for old in order] for name in rows[0]}
    values = columns.pop("value")
    try:
        graph = AttributionGraph(
            nodes=NodeTable(**columns),
            edges=Edges.from_unsorted(
                target=pairs[:, 0], source=pairs[:, 1], weight=np.array([x[2] for x in links])
            ),
            tokens=tokens,
            prompt=record["metadata"]["prompt"],
            n_layers=_layers(extra, kinds, layers),
            target_values=values,
            metadata=extra["metadata"],
            **{name: extra[name] for name in KEPT_FIELDS if extra.get(name) is not None},
        )
    except MALFORMED as error:
        raise GraphError(f"the graph JSON cannot be read: {_one_line(error)}") from error
    return _with_record(graph, record, {ids[old]: now for now, old in enumerate(order)})


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
    metadata = record["metadata"]
    tokens = metadata["prompt_tokens"]
    if not isinstance(tokens, list) or not all(isinstance(text, str) for text in tokens):
        raise GraphError("graph JSON: metadata's prompt_tokens is not a list of texts")
    if not isinstance(metadata["prompt"], str):
        raise GraphError("graph JSON: metadata's prompt is not a text")
    if not isinstance(record.get("qParams", {}), dict):
        raise GraphError("graph JSON: qParams is not an object")
    try:
        json.dumps([metadata, record.get("qParams"), record.get(EXTRA)])
    except (RecursionError, TypeError, ValueError) as error:
        raise GraphError(f"graph JSON nests too deep or is not JSON ({error})") from error


def _extra(record: dict[str, Any]) -> dict[str, Any]:
    """What pellucid wrote beside the format, empty where another program wrote the file."""
    empty: dict[str, Any] = {"biases": [], "bias_links": []}
    empty |= {name: {} for name in ("metadata", "target_values", "activations", "token_labels")}
    extra = empty | {"schema_version": 0}
    given = record.get(EXTRA, {})
    if not isinstance(given, dict):
        raise GraphError(f"graph JSON: {EXTRA!r} is not an object; remove it or restore the file")
    extra |= given
    version = extra["schema_version"]
    if not isinstance(version, int) or version > EXTRA_VERSION:
        raise GraphError(
            f"graph JSON: {EXTRA!r} has schema version {str(version)[:20]}, this pellucid reads up "
            f"to {EXTRA_VERSION}; upgrade pellucid"
        )
    for name, value in empty.items():
        if not isinstance(extra[name], type(value)):
            raise GraphError(f"graph JSON: {name!r} of {EXTRA!r} is not a {type(value).__name__}")
    return extra


def _layers(extra: dict[str, Any], kinds: list[int], layers: list[int]) -> int:
    logits = [layer for kind, layer in zip(kinds, layers, strict=True) if kind == LOGIT]
    n_layers = extra.get("n_layers", max(logits) if logits else max(layers) + 1)
    if not isinstance(n_layers, int) or not 0 <= n_layers <= MAX_LAYERS:
        raise GraphError(
            f"graph JSON: a model of {str(n_layers)[:20]} layers; at most {MAX_LAYERS} can be read"
        )
    return n_layers


def _read_node(node: dict[str, Any], tokens: list[str], extra: dict[str, Any]) -> dict[str, Any]:
    kind = KIND_OF_TYPE.get(node["feature_type"])
    if kind is None:
        raise ValueError(f"feature_type {node['feature_type']!r} is not known")
    node_id = node["node_id"]
    _, second, _ = node_id.split("_")
    position = int(node["ctx_idx"])
    label = str(node["clerp"] or "")
    probability = _number(node.get("token_prob")) if kind == LOGIT else 0.0
    if kind == LOGIT:
        match, chance = LOGIT_TEXT.fullmatch(label), LOGIT_CHANCE.search(label)
        if not probability and chance:  # the schema does not require token_prob
            probability = _number(chance.group(1))
        label = match.group(1) if match else label
    elif kind == TOKEN:
        label = str(extra["token_labels"].get(node_id, tokens[position]))
    value = extra["target_values"].get(node_id)
    activation = node.get("activation") if kind == FEATURE else extra["activations"].get(node_id)
    return {
        "kind": kind,
        "layer": -1 if kind == TOKEN else int(node["layer"]) - (kind == LOGIT),
        "position": position,
        "index": -1 if kind == ERROR else int(second),
        "activation": _number(activation),
        "probability": probability,
        "label": label,
        "value": math.nan if value is None else _number(value),
    }


def _read_bias(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node["node_id"], str):
        raise ValueError(f"a bias has the id {node['node_id']!r}, which is not a text")
    return {
        "kind": BIAS,
        "layer": int(node["layer"]),
        "position": int(node["ctx_idx"]),
        "index": -1,
        "activation": 0.0,
        "probability": 0.0,
        "label": str(node["clerp"]),
        "value": math.nan,
    }


def _number(value: Any) -> float:
    number = float(value or 0)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _sort_key(row: dict[str, Any]) -> tuple[int, ...]:
    """Our node order; logits and biases of one place keep the file's order."""
    if row["kind"] == LOGIT:
        return (LOGIT, 0, 0, 0)
    return (row["kind"], row["layer"], row["position"], row["index"])


def _with_record(
    graph: AttributionGraph, record: dict[str, Any], number_of: dict[str, int]
) -> AttributionGraph:
    """The graph with the file's supernodes and what only the format needs in its metadata."""
    names = node_names(graph)
    view = dict(record.get("qParams", {}))
    groups = view.pop("supernodes", None) or []
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and group and all(isinstance(text, str) for text in group)
        for group in groups
    ):
        raise GraphError("graph JSON: supernodes is not a list of [label, node id, ...]")
    supernodes = [
        [group[0], *(names[number_of[node_id]] for node_id in group[1:] if node_id in number_of)]
        for group in groups
    ]
    influence = {}
    for node in record["nodes"]:
        value = node.get("influence")
        if isinstance(value, int | float) and math.isfinite(value):
            influence[names[number_of[node["node_id"]]]] = float(value)
    described = {key: record["metadata"][key] for key in record["metadata"]}
    for key in OWN_FIELDS:
        described.pop(key, None)
    kept = {"metadata": described, "qParams": view, "influence": influence}
    kept |= {key: record["metadata"][key] for key in ("slug", "scan")}
    metadata = graph.metadata | {RECORD: kept} | ({KEY: supernodes} if supernodes else {})
    return replace(graph, metadata=metadata)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
