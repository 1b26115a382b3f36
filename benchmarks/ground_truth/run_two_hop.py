"""Case (b): the two-hop organism, where it is known what the features must carry and where."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ground_truth import two_hop
from benchmarks.ground_truth.basis import Basis, Case, Nodes, mlp_values
from benchmarks.ground_truth.fit import FitSettings, fit, fraction_unexplained
from benchmarks.ground_truth.judge import judge
from benchmarks.ground_truth.methods import replaced_effects
from benchmarks.ground_truth.neurons import neurons
from benchmarks.ground_truth.statistics import mean_interval, roc_auc
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.models.model import LanguageModel

BUDGETS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
SETTINGS = {
    name: FitSettings(features=384, cross_layer=cross_layer, k=12, steps=1000, batch=512, rate=3e-3)
    for name, cross_layer in (("PLT", False), ("CLT", True))
}
DONORS = 4
LEAST_EFFECT = 0.2
"""A node is true if its exchange costs this share of what the costliest node's exchange costs."""


def run(prompts: int, cache: Path | None) -> dict[str, Any]:
    """All figures of the case.

    Raises:
        ValueError: the organism did not become what the truth is about.
    """
    model = two_hop.load_or_train(two_hop.Recipe(), cache)
    checks = two_hop.accuracy(model) | two_hop.bridge_swap(model)
    if checks["unseen_cities"] < 0.95 or checks["swap_other_state"] < 0.7:
        raise ValueError(f"the organism did not learn to compose: {checks}; change its seed")
    x, y = _rows(model)
    bases = [neurons(model)]
    bases += [fit(x, y, settings).basis(name) for name, settings in SETTINGS.items()]
    cases, cities = _cases(model, prompts)
    results = {}
    for basis in bases:
        results[basis.name] = _judge_basis(cases, cities, basis)
        results[basis.name]["fvu"] = fraction_unexplained(basis, x, y)
    return {"organism": checks, "bases": results}


def _rows(model: LanguageModel) -> tuple[Float[Tensor, "N L d"], Float[Tensor, "N L d"]]:
    """MLP inputs and outputs at all positions but the first of every question."""
    city, relation = two_hop.every_pair()
    questions = (
        two_hop.two_hop_ids(city, relation),
        two_hop.one_hop_ids(torch.arange(two_hop.CITIES)),
    )
    layers = range(model.n_layers)
    parts = []
    for kind in ("mlp_in", "mlp_out"):
        sites = [Site(kind, layer) for layer in layers]
        values = [model.activations(ids, sites) for ids in questions]
        rows = [torch.stack([v[site] for site in sites], 2)[:, 1:].flatten(0, 1) for v in values]
        parts.append(torch.cat(rows))
    return parts[0], parts[1]


def _cases(model: LanguageModel, count: int) -> tuple[list[Case], list[tuple[int, int]]]:
    """Questions about unseen cities that are answered right, with their city and relation."""
    city, relation = two_hop.every_pair()
    rows = two_hop.is_unseen_city(city).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    ids = two_hop.two_hop_ids(city[rows], relation[rows])
    answers = two_hop.answer_of(two_hop.state_of(city[rows]), relation[rows])
    right = (model.logits(ids)[:, -1].argmax(-1) == answers).nonzero().squeeze(1)[:count]
    cases = [Case(model=model, ids=ids[n], answer=int(answers[n])) for n in right]
    return cases, [(int(city[rows[n]]), int(relation[rows[n]])) for n in right]


def _judge_basis(cases: list[Case], cities: list[tuple[int, int]], basis: Basis) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    positives: list[int] = []

    def read(
        number: int, nodes: Nodes, _graph: AttributionGraph, scores: dict[str, Tensor]
    ) -> None:
        used = _carriers(cases[number], cities[number], basis, nodes)
        positives.append(int(used.sum()))
        for name, values in scores.items():
            found.setdefault(name, []).append(roc_auc(values.numpy(), used))

    summary = judge(cases, basis, BUDGETS, read).summary()
    return summary | {
        "true_nodes": float(np.mean(positives)),
        "node_auc": {name: mean_interval(np.array(values)) for name, values in found.items()},
    }


def _carriers(case: Case, question: tuple[int, int], basis: Basis, nodes: Nodes) -> np.ndarray:
    """Nodes that carry what tells this city's state from others, by exact interchange.

    Each node alone takes the activation that it has in the same question about a city of another
    state; a node is true if that costs the answer's logit enough, in the mean over donors.
    """
    city, relation = question
    others = (city + 1 + torch.arange(DONORS) * (two_hop.STATES // DONORS)) % two_hop.CITIES
    ids = two_hop.two_hop_ids(others, torch.full_like(others, relation))
    effects = []
    for donor in ids:
        inputs, _ = mlp_values(Case(model=case.model, ids=donor, answer=case.answer))
        values = torch.zeros(len(nodes))
        for layer, x in enumerate(inputs):
            own = nodes.layers == layer
            values[own] = basis.encoders[layer](x)[nodes.positions[own], nodes.indices[own]]
        effects.append(replaced_effects(case, basis, nodes, values))
    costs = -torch.stack(effects).mean(0)
    return (costs > LEAST_EFFECT * costs.max()).numpy()
