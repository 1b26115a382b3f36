"""Graphs with all that a graph can hold, and what comes back from files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import EDGE_COLUMNS, LOGIT, NODE_COLUMNS
from support.graphs import causal_record, random_graph


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the header of a graph file."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["pellucid"])
        del header["sha256"]  # written anew
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


def assert_same(left: AttributionGraph, right: AttributionGraph) -> None:
    """All that two graphs hold is equal, but for their metadata."""
    for name in NODE_COLUMNS:
        np.testing.assert_array_equal(getattr(left.nodes, name), getattr(right.nodes, name), name)
    for name in EDGE_COLUMNS:
        np.testing.assert_array_equal(getattr(left.edges, name), getattr(right.edges, name), name)
    np.testing.assert_array_equal(left.target_values, right.target_values)
    assert left.nodes.label == right.nodes.label
    for name in ("tokens", "prompt", "n_layers", "scores", "causal", "row_sum_max_error"):
        assert getattr(left, name) == getattr(right, name), name


def full_graph(seed: int) -> AttributionGraph:
    """A graph with everything that a graph can hold."""
    graph = random_graph(seed)
    columns = {name: getattr(graph.nodes, name).copy() for name in NODE_COLUMNS}
    columns["activation"][graph.nodes.kind == LOGIT] = 3.25
    labels = [f"node {row}" for row in range(len(graph.nodes))]
    return replace(
        graph,
        nodes=replace(graph.nodes, label=labels, **columns),
        scores={"replacement": 0.7, "completeness": 0.9},
        causal=causal_record(graph),
        row_sum_max_error=2e-6,
    )
