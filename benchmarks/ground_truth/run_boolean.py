"""Case (a): the compiled Boolean chains, whose wires are known."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Nodes
from benchmarks.ground_truth.boolean_case import (
    BooleanCase,
    assignment,
    draw_cases,
    edge_methods,
    judged_edges,
    judged_nodes,
    mlp_rows,
    train_dictionaries,
)
from benchmarks.ground_truth.boolean_circuit import random_circuit
from benchmarks.ground_truth.compiled import CompiledModel, compile_circuit
from benchmarks.ground_truth.fit import fraction_unexplained
from benchmarks.ground_truth.judge import judge
from benchmarks.ground_truth.neurons import neurons
from benchmarks.ground_truth.shortcuts import (
    cross_layer_share,
    flip_effects,
    path_depth,
    response,
)
from benchmarks.ground_truth.statistics import interval, mean_interval, roc_auc
from pellucid.graphs.graph import AttributionGraph

BUDGETS = [1, 2, 4, 8, 16, 32]


def run(prompts: int) -> dict[str, Any]:
    """All figures of the case."""
    compiled = compile_circuit(random_circuit())
    cases = draw_cases(compiled, prompts)
    true = neurons(compiled.model)
    bases = [true]
    for begun, start in (("from the truth", true), ("from random", None)):
        for name, fitted in train_dictionaries(compiled, start).items():
            bases.append(fitted.basis(f"{name} {begun}"))
    return {basis.name: _judge_basis(compiled, cases, true, basis) for basis in bases}


def _judge_basis(
    compiled: CompiledModel, cases: list[BooleanCase], true: Basis, basis: Basis
) -> dict[str, Any]:
    stands_for = assignment(compiled, basis, true)
    edges: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    depths: list[float] = []

    def read(number: int, nodes: Nodes, graph: AttributionGraph, scores: dict[str, Tensor]) -> None:
        boolean = cases[number]
        depths.append(path_depth(graph))
        for name, each in edge_methods(boolean, basis, nodes, graph, number).items():
            edges.setdefault(name, []).append(
                roc_auc(*judged_edges(boolean, nodes, stands_for, each))
            )
        for name, values in scores.items():
            found.setdefault(name, []).append(
                roc_auc(*judged_nodes(boolean, nodes, stands_for, values))
            )

    summary = judge([each.case for each in cases], basis, BUDGETS, read).summary()
    x, y = mlp_rows(compiled, torch.stack([each.case.ids for each in cases]))
    return summary | {
        "edge_auc": {name: mean_interval(np.array(values)) for name, values in edges.items()},
        "node_auc": {name: mean_interval(np.array(values)) for name, values in found.items()},
        "shortcut": {
            "fvu": fraction_unexplained(basis, x, y),
            "path_depth": mean_interval(np.array(depths)),
            "cross_layer_share": cross_layer_share(basis, x),
            "response_to_flips": _response(compiled, cases, basis),
        },
    }


def _response(compiled: CompiledModel, cases: list[BooleanCase], basis: Basis) -> dict[str, float]:
    real = [flip_effects(compiled, each, None) for each in cases]
    replaced = [flip_effects(compiled, each, basis) for each in cases]

    def agreement(rows: np.ndarray) -> float:
        return response([real[row] for row in rows], [replaced[row] for row in rows])

    low, high = interval(len(cases), agreement)
    return {"value": agreement(np.arange(len(cases))), "low": low, "high": high}
