"""A traced graph in plain words: what it found and how far to trust it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.cli.attention_words import attention_figures, describe_attention
from pellucid.evaluation.meaning import Unwritten
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.graphs.trust import trust_statements, verdict

SHOWN_FEATURES = 8
SHOWN_VALUES = 2


def graph_record(graph: AttributionGraph) -> dict[str, Any]:
    """The figures of a graph, without its tables."""
    tables = ("rows", "downstream")
    causal = graph.causal and {k: v for k, v in graph.causal.items() if k not in tables}
    return {
        "prompt": graph.prompt,
        "answer": answer(graph),
        "nodes": graph.nodes.counts(),
        "edges": len(graph.edges),
        "scores": graph.scores,
        "row_sum_max_error": graph.row_sum_max_error,
        "causal": causal,
        "attention": attention_figures(graph),
    }


def answer(graph: AttributionGraph) -> dict[str, Any]:
    """The likeliest next token and its probability."""
    logits = np.flatnonzero(graph.nodes.kind == LOGIT)
    best = int(logits[np.argmax(graph.nodes.probability[logits])])
    return {
        "token": graph.nodes.label[best].strip(),
        "probability": float(graph.nodes.probability[best]),
    }


def describe_graph(graph: AttributionGraph, unwritten: Sequence[Unwritten] = ()) -> list[str]:
    """What was found, and how far to trust it, a paragraph a line.

    Args:
        graph: the graph; labels of its features are shown.
        unwritten: values that its features stand for though the prompt does not say them.
    """
    held = map(_held, unwritten[:SHOWN_VALUES])
    return [*_found(graph), *held, *describe_attention(graph), *_trust(graph)]


def _held(found: Unwritten) -> str:
    return (
        f"The prompt does not say {found.value!r}, but the model holds it: {found.features} "
        f"features that stand for it carry {found.influence:.0%} of the features' influence."
    )


def _found(graph: AttributionGraph) -> list[str]:
    said = answer(graph)
    counts = graph.nodes.counts()
    lines = [
        f"After {graph.prompt!r} the model says {said['token']!r} with probability "
        f"{said['probability']:.1%}.",
        f"The graph explains it with {counts['feature']:,} features and {len(graph.edges):,} "
        "edges. The features that carry most of the influence:",
    ]
    share = influence(graph)
    features = np.flatnonzero(graph.nodes.kind == FEATURE)
    total = share[features].sum()
    for node in features[np.argsort(-share[features], kind="stable")][:SHOWN_FEATURES]:
        place = f"layer {graph.nodes.layer[node]}, at {_token(graph, node)!r}"
        label = graph.nodes.label[node]
        lines.append(
            f"  {share[node] / total:5.1%}  feature {graph.nodes.index[node]} ({place})"
            + (f": {label}" if label else "")
        )
    return lines


def _token(graph: AttributionGraph, node: int) -> str:
    return graph.tokens[int(graph.nodes.position[node])].strip()


def _trust(graph: AttributionGraph) -> list[str]:
    overall = verdict(graph)
    lines = [f"{overall.heading}: {overall.value}. {overall.text}"]
    for statement in trust_statements(graph):
        lines.append(f"  {statement.heading}: {statement.value}. {statement.text}")
    return lines
