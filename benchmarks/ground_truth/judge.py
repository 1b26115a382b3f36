"""Every method on every prompt of a case: faithfulness of its circuits, and its nodes and edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Case, Nodes, active_nodes
from benchmarks.ground_truth.circuits import (
    Ends,
    areas,
    circuit_metrics,
    faithfulness,
    real_metric,
)
from benchmarks.ground_truth.methods import (
    activation_patching,
    attribution_graph,
    attribution_patching,
    eap_ig,
    graph_influence,
    graph_path_sum,
    random_scores,
)
from benchmarks.ground_truth.statistics import interval
from pellucid.graphs.graph import AttributionGraph

RANDOM = "random"
RANDOM_SEEDS = 5
MOST_PATCHED = 2500
"""Nodes of a prompt above which no exact run a node is made."""
Reader = Callable[[int, Nodes, AttributionGraph, dict[str, Tensor]], None]
"""Sees prompt number, nodes, graph and every method's scores of it."""


@dataclass(slots=True)
class Judgement:
    """What was measured of one basis on P prompts.

    Attributes:
        budgets: circuit sizes, without 0.
        metrics: by method, the metric of each circuit, P rows of K budgets.
        full, empty, everything: the metric of the real model, of no node and of all nodes.
        nodes: how many nodes each prompt has.
    """

    budgets: list[int]
    metrics: dict[str, list[np.ndarray]] = field(default_factory=dict)
    full: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    everything: list[float] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Curves, CPR and CMD with their intervals, JSON-able."""
        ends = Ends(full=np.array(self.full), empty=np.array(self.empty))
        whole = faithfulness(np.array(self.everything)[:, None], ends)
        return {
            "prompts": len(self.full),
            "nodes": float(np.mean(self.nodes)),
            "metric": {"model": float(ends.full.mean()), "empty": float(ends.empty.mean())},
            "faithfulness_of_all_nodes": float(whole[0]),
            "budgets": self.budgets,
            "methods": {
                name: self._method(np.stack(rows), ends) for name, rows in self.metrics.items()
            },
        }

    def _method(self, metrics_PK: np.ndarray, ends: Ends) -> dict[str, Any]:
        def area(rows: np.ndarray, which: int) -> float:
            drawn = Ends(full=ends.full[rows], empty=ends.empty[rows])
            return areas(faithfulness(metrics_PK[rows], drawn), self.budgets)[which]

        everyone = np.arange(len(metrics_PK))
        result: dict[str, Any] = {"curve": faithfulness(metrics_PK, ends).tolist()}
        for which, name in enumerate(("cpr", "cmd")):
            low, high = interval(len(everyone), lambda rows, w=which: area(rows, w))
            result[name] = {"value": area(everyone, which), "low": low, "high": high}
        return result


def all_scores(
    case: Case, basis: Basis, nodes: Nodes, graph: AttributionGraph, *, seed: int
) -> dict[str, Tensor]:
    """Scores of a prompt's nodes by every method (the random control with one seed)."""
    scores = {
        "graph influence": graph_influence(graph, nodes),
        "graph path sum": graph_path_sum(graph, nodes),
        "attribution patching": attribution_patching(case, basis, nodes),
        "EAP-IG": eap_ig(case, basis, nodes),
    }
    if len(nodes) <= MOST_PATCHED:
        scores["activation patching"] = activation_patching(case, basis, nodes)
    scores[RANDOM] = random_scores(nodes, seed)
    return scores


def judge(
    cases: Sequence[Case], basis: Basis, budgets: list[int], reader: Reader | None = None
) -> Judgement:
    """Score the nodes of every prompt by every method and run their circuits."""
    result = Judgement(budgets=budgets)
    for number, case in enumerate(cases):
        nodes = active_nodes(case, basis)
        graph = attribution_graph(case, basis)
        scores = all_scores(case, basis, nodes, graph, seed=number)
        result.nodes.append(len(nodes))
        result.full.append(real_metric(case))
        ends = circuit_metrics(case, basis, nodes, torch.zeros(len(nodes)), [0, len(nodes)])
        result.empty.append(ends[0])
        result.everything.append(ends[1])
        for name, values in scores.items():
            result.metrics.setdefault(name, []).append(
                _random_metrics(case, basis, nodes, budgets, number)
                if name == RANDOM
                else circuit_metrics(case, basis, nodes, values, budgets)
            )
        if reader is not None:
            reader(number, nodes, graph, scores)
    return result


def _random_metrics(
    case: Case, basis: Basis, nodes: Nodes, budgets: list[int], number: int
) -> np.ndarray:
    """The mean metric over several random orders."""
    seeds = [RANDOM_SEEDS * number + seed for seed in range(RANDOM_SEEDS)]
    drawn = [
        circuit_metrics(case, basis, nodes, random_scores(nodes, seed), budgets) for seed in seeds
    ]
    return np.mean(drawn, axis=0)
