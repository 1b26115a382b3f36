"""What the page is given of a graph's attention record (`metadata["attention"]`).

The record names sources and targets by what they are; here they get the numbers that they have on
the page, or none where the page does not show them.
"""

from collections.abc import Mapping
from typing import Any

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import NODE_KINDS

Key = tuple[str, int, int, int]


def attention_payload(graph: AttributionGraph) -> dict[str, Any] | None:
    """The attention record of a graph whose nodes are those of the page; None without one.

    Raises:
        GraphError: the record is not one that pellucid writes.
    """
    record = graph.metadata.get("attention")
    if record is None:
        return None
    try:
        numbers = _numbers(graph)
        return {
            "covered": float(record["influence_covered"]),
            "residual_share": float(record["residual_share"]),
            "edges": [_edge(edge, numbers) for edge in record["edges"]],
            "heads": [_head(head, numbers) for head in record["heads"]],
            "check": _check(record["check"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(
            f"the graph's attention record is malformed ({error!r:.80}); trace again, or take "
            "'attention' out of its metadata"
        ) from error


def _numbers(graph: AttributionGraph) -> dict[Key, int]:
    nodes = graph.nodes
    columns = (nodes.kind, nodes.layer, nodes.position, nodes.index)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    keys = [(NODE_KINDS[kind], layer, position, index) for kind, layer, position, index in rows]
    return {key: number for number, key in reversed(list(enumerate(keys)))}


def _source(source: Mapping[str, Any], numbers: Mapping[Key, int]) -> dict[str, Any]:
    layer, position, index = (int(source.get(name, -1)) for name in ("layer", "position", "index"))
    key = (str(source["kind"]), layer, position, index)
    return {
        "node": numbers.get(key),
        "kind": key[0],
        "layer": layer,
        "position": position,
        "index": index,
        "label": "",
    }


def _edge(edge: Mapping[str, Any], numbers: Mapping[Key, int]) -> dict[str, Any]:
    return {
        "source": _source(edge["source"], numbers)["node"],
        "target": _source(edge["target"], numbers)["node"],
        "weight": float(edge["weight"]),
        "residual": float(edge["residual"]),
        "other": float(edge["other_heads"]),
        "heads": [
            {"name": _name(head), "loading": float(head["loading"])} for head in edge["heads"]
        ],
    }


def _name(head: Mapping[str, Any]) -> str:
    return f"{int(head['layer'])}.{int(head['head'])}"


def _head(head: Mapping[str, Any], numbers: Mapping[Key, int]) -> dict[str, Any]:
    qk = head["qk"]
    pairs = [
        {
            "query": _source(pair["query"], numbers),
            "key": _source(pair["key"], numbers),
            "value": float(pair["value"]),
            "share": float(pair["share"]),
        }
        for pair in qk["pairs"]
    ]
    sides = {
        side: [
            {"source": _source(each["source"], numbers), "value": float(each["value"])}
            for each in qk[side]
        ]
        for side in ("query_sources", "key_sources")
    }
    figures = ("probability", "score", "explained", "constant_share", "error_share")
    return {
        "name": _name(head),
        "layer": int(head["layer"]),
        "head": int(head["head"]),
        "share": float(head["share"]),
        "attention_share": float(head["attention_share"]),
        "query": int(qk["query"]),
        "key": int(qk["key"]),
        "contrast": bool(qk["contrast"]),
        **{name: float(qk[name]) for name in figures},
        "pairs": pairs,
        **sides,
        "check": _check(qk["check"]),
        "removals": _removals(qk["check"], numbers),
    }


def _check(check: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if check is None:
        return None
    figures: dict[str, Any] = {"n": int(check["n"])}
    figures["frozen_max_error"] = float(check["frozen_max_error"])
    for name in ("real", "random", "real_answered", "random_answered"):
        value, interval = check[f"spearman_{name}"], check[f"spearman_{name}_interval"]
        figures[name] = None if value is None else float(value)
        figures[f"{name}_interval"] = None if interval is None else [float(x) for x in interval]
    return figures


def _removals(check: Mapping[str, Any] | None, numbers: Mapping[Key, int]) -> list[dict[str, Any]]:
    names = (
        "predicted",
        "predicted_answered",
        "real",
        "random_real",
        "probability_change",
        "random_probability_change",
    )
    rows = [] if check is None else check["rows"]
    return [
        {"source": _source(row["source"], numbers)} | {name: float(row[name]) for name in names}
        for row in rows
    ]
