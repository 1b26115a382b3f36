"""The attention behind a graph in plain words, and as the figures that `--json` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.graphs.graph import AttributionGraph

FIGURES = (
    "n",
    "frozen_max_error",
    "spearman_real",
    "spearman_random",
    "spearman_real_answered",
    "spearman_random_answered",
    "median_effect_ratio",
)


def attention_figures(graph: AttributionGraph) -> dict[str, Any] | None:
    """The heads that carry most, each with its strongest attention; None where not asked for."""
    record = graph.metadata.get("attention")
    if record is None:
        return None
    names = ("query", "key", "probability", "explained", "constant_share", "error_share")
    check = record["check"]
    return {
        "influence_covered": record["influence_covered"],
        "residual_share": record["residual_share"],
        "max_error": record["max_error"],
        "heads": [
            {"layer": head["layer"], "head": head["head"], "share": head["share"]}
            | {name: head["qk"][name] for name in names}
            for head in record["heads"]
        ],
        "check": check and {name: check[name] for name in FIGURES},
    }


def describe_attention(graph: AttributionGraph) -> list[str]:
    """Which heads carry the strongest edges, why they look where they do, and how sure that is."""
    record = graph.metadata.get("attention")
    if record is None:
        return []
    lines = [
        f"Of the influence of its {record['split_edges']} strongest edges, "
        f"{record['residual_share']:.0%} passes no attention head. The heads that carry most:"
    ]
    lines += [_head(graph, head) for head in record["heads"]]
    check = record["check"]
    if check is not None:
        lines.append(
            f"  Removing {check['n']} features one at a time: rank correlation of predicted with "
            f"measured change of these scores in the real model, with norms held fixed "
            f"{_with_control(check, '')}, with norms answering {_with_control(check, '_answered')}."
        )
    return lines


def _head(graph: AttributionGraph, head: Mapping[str, Any]) -> str:
    qk = head["qk"]
    query, key = (graph.tokens[qk[side]].strip() for side in ("query", "key"))
    return (
        f"  {head['share']:5.1%}  layer {head['layer']} head {head['head']}, from {query!r} to "
        f"{key!r} (attention {qk['probability']:.0%}; {qk['constant_share']:.0%} of why is "
        f"constants, {qk['error_share']:.0%} errors)"
    )


def _with_control(check: Mapping[str, Any], suffix: str) -> str:
    real, random = (_figure(check, kind + suffix) for kind in ("real", "random"))
    return f"{real} (random features {random})"


def _figure(check: Mapping[str, Any], name: str) -> str:
    value, interval = check[f"spearman_{name}"], check[f"spearman_{name}_interval"]
    return _number(value) + ("" if interval is None else f" [{_range(interval)}]")


def _range(interval: Sequence[float]) -> str:
    return ", ".join(map(_number, interval))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
