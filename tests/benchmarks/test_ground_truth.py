"""The pieces of the ground-truth benchmark, against brute force and hand-made cases."""

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ground_truth import two_hop
from benchmarks.ground_truth.basis import Basis, Case, active_nodes
from benchmarks.ground_truth.boolean_case import (
    assignment,
    draw_cases,
    edge_methods,
    judged_edges,
    judged_nodes,
    mlp_rows,
    training_ids,
)
from benchmarks.ground_truth.boolean_circuit import ANSWER, MINTERMS, TABLES, random_circuit
from benchmarks.ground_truth.circuits import Ends, areas, circuit_metrics, faithfulness, real_metric
from benchmarks.ground_truth.compiled import CompiledModel, compile_circuit
from benchmarks.ground_truth.direct import direct_effects
from benchmarks.ground_truth.fit import FitSettings, fit, fraction_unexplained
from benchmarks.ground_truth.judge import judge
from benchmarks.ground_truth.methods import (
    activation_gradients,
    activation_patching,
    attribution_graph,
    attribution_patching,
    on_nodes,
)
from benchmarks.ground_truth.neurons import neurons
from benchmarks.ground_truth.shortcuts import (
    cross_layer_share,
    flip_effects,
    path_depth,
    response,
)
from benchmarks.ground_truth.statistics import mean_interval, roc_auc
from benchmarks.ground_truth.tables import tables
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.load import load_model
from support.tiny_models import tiny_model

ROOT = Path(__file__).parents[2]


@cache
def compiled() -> CompiledModel:
    return compile_circuit(random_circuit())


@cache
def true_basis() -> Basis:
    return neurons(compiled().model)


@cache
def fitted_basis(cross_layer: bool) -> Basis:
    x, y = mlp_rows(compiled(), training_ids(compiled(), seed=0)[:256])
    settings = FitSettings(features=20, cross_layer=cross_layer, sparsity=0.01, steps=20)
    return fit(x, y, settings).basis("fitted")


def test_tables_are_those_that_depend_on_both_inputs() -> None:
    every = set(product((False, True), repeat=4))
    one_sided = {t for t in every if t[:2] == t[2:] or t[::2] == t[1::2]}
    assert set(TABLES) == every - one_sided
    assert len(TABLES) == 10


def test_the_model_computes_the_circuit() -> None:
    prompts = compiled().circuit.draw(300, seed=5)
    logits = compiled().model.logits(compiled().ids(prompts))
    right = [compiled().answer_token(compiled().circuit.truth(p).answer) for p in prompts]
    assert logits[:, -1].argmax(-1).tolist() == right


def test_active_neurons_are_the_minterms_of_the_truth() -> None:
    for boolean in draw_cases(compiled(), 12):
        nodes = active_nodes(boolean.case, true_basis())
        found = {("minterm", layer, index) for layer, _, index in nodes.places()}
        assert found == boolean.truth.active
        assert set(nodes.positions.tolist()) == {boolean.last}


def test_only_used_minterms_matter() -> None:
    for boolean in draw_cases(compiled(), 6):
        nodes = active_nodes(boolean.case, true_basis())
        effects = activation_patching(boolean.case, true_basis(), nodes)
        _, used = judged_nodes(boolean, nodes, _itself(), effects)
        assert effects[used].min() > 5 * effects[~used].max()
        assert len(boolean.truth.used_nodes) == compiled().circuit.n_hops


def test_used_wires_form_the_chain() -> None:
    boolean = draw_cases(compiled(), 1)[0]
    truth, hops = boolean.truth, compiled().circuit.n_hops
    assert truth.used < truth.wires
    into = {target: {s for s, t in truth.used if t == target} for _, target in truth.used}
    assert len(into[ANSWER]) == 1
    assert sum(source[0] == "token" for source, _ in truth.used) == (hops + 1) + 2
    assert {node[2] // MINTERMS for node in truth.used_nodes} == {boolean.prompt.query}


def _itself() -> list[torch.Tensor]:
    """Every neuron stands for itself."""
    count = true_basis().decoders[0, 0].shape[0]
    numbers = torch.arange(count)
    return [
        torch.stack([torch.full_like(numbers, layer), numbers], dim=1)
        for layer in range(true_basis().n_layers)
    ]


def test_neurons_are_assigned_to_themselves() -> None:
    x, _ = mlp_rows(compiled(), training_ids(compiled(), seed=1))
    found = assignment(compiled(), true_basis(), true_basis())
    for layer, (rows, expected) in enumerate(zip(found, _itself(), strict=True)):
        alive = true_basis().encoders[layer](x[:, layer]).std(0) > 0.01
        assert torch.equal(rows[alive], expected[alive])


def test_the_graph_of_the_true_basis_ranks_true_wires_first() -> None:
    for number, boolean in enumerate(draw_cases(compiled(), 6)):
        nodes = active_nodes(boolean.case, true_basis())
        graph = attribution_graph(boolean.case, true_basis())
        methods = edge_methods(boolean, true_basis(), nodes, graph, number)
        for name in ("graph influence", "EAP", "EAP-IG"):
            assert roc_auc(*judged_edges(boolean, nodes, _itself(), methods[name])) > 0.99, name


@pytest.mark.parametrize("name", ["neurons", "PLT", "CLT"])
def test_autograd_finds_the_edges_of_the_graph(name: str) -> None:
    basis = true_basis() if name == "neurons" else fitted_basis(name == "CLT")
    case = draw_cases(compiled(), 1)[0].case
    nodes = active_nodes(case, basis)
    graph = attribution_graph(case, basis)
    expected, _, _ = direct_effects(case, basis, nodes, frozen=True)
    number = torch.full((len(graph.nodes),), -1)
    features = torch.from_numpy(graph.nodes.is_kind(FEATURE))
    number[features] = torch.arange(len(nodes))  # both are sorted by layer, position and index
    number[torch.from_numpy(graph.nodes.is_kind(LOGIT))] = len(nodes)
    edges = graph.edges
    sources, targets = number[edges.source], number[edges.target]
    found = torch.zeros_like(expected)
    kept = (sources >= 0) & (sources < len(nodes))
    found[targets[kept], sources[kept]] = torch.from_numpy(edges.weight)[kept]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_gradients_of_scaled_layers_add_up_to_the_effect_of_removing_a_layer() -> None:
    model = load_model(tiny_model("gpt2", activation_function="relu"))
    ids = torch.tensor([1, 5, 9, 14, 20])
    case = Case(model=model, ids=ids, answer=7)
    basis = neurons(model)
    nodes = active_nodes(case, basis)
    steps = 400
    scales = [(step + 0.5) / steps for step in range(steps)]
    gradients = activation_gradients(case, basis, nodes, scales=scales)
    everything = torch.arange(len(nodes))
    for layer in range(model.n_layers):
        own = nodes.layers == layer
        attributed = float((gradients * nodes.activations)[own].sum())
        removed = _without(case, basis, nodes, everything[own])
        assert attributed == pytest.approx(real_metric(case) - removed, rel=2e-2, abs=2e-3)


def _without(case: Case, basis: Basis, nodes: object, dropped: torch.Tensor) -> float:
    """The real model's metric when some nodes of one layer write nothing."""
    layer = int(nodes.layers[dropped[0]])
    mlp = case.model.module.transformer.h[layer].mlp

    def hook(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        for node in dropped.tolist():
            changed[:, nodes.positions[node]] -= (
                nodes.activations[node] * basis.decoders[layer, layer][nodes.indices[node]]
            )
        return changed

    handle = mlp.register_forward_hook(hook)
    try:
        return real_metric(case)
    finally:
        handle.remove()


def test_attribution_patching_is_exact_where_the_model_is_linear() -> None:
    case = draw_cases(compiled(), 1)[0].case
    nodes = active_nodes(case, true_basis())
    last = nodes.layers == compiled().circuit.n_hops - 1
    first_order = attribution_patching(case, true_basis(), nodes)
    exact = activation_patching(case, true_basis(), nodes)
    torch.testing.assert_close(first_order[last], exact[last], atol=1e-3, rtol=1e-4)


def test_circuits_of_all_neurons_are_the_model_and_of_the_used_ones_nearly() -> None:
    for boolean in draw_cases(compiled(), 3):
        case = boolean.case
        nodes = active_nodes(case, true_basis())
        _, used = judged_nodes(boolean, nodes, _itself(), torch.zeros(len(nodes)))
        scores = torch.from_numpy(used).float()
        empty, two, own, whole = circuit_metrics(
            case, true_basis(), nodes, scores, [0, used.sum() - 1, used.sum(), len(nodes)]
        )
        assert whole == pytest.approx(real_metric(case), abs=1e-3)
        assert own == pytest.approx(real_metric(case), rel=0.1)
        assert abs(empty) < 0.1 * own
        assert two < 0.5 * own


def test_a_training_that_begins_at_the_truth_and_takes_no_step_is_the_truth() -> None:
    x, y = mlp_rows(compiled(), training_ids(compiled(), seed=0)[:256])
    for cross_layer in (False, True):
        settings = FitSettings(features=24, cross_layer=cross_layer, steps=0)
        basis = fit(x, y, settings, true_basis()).basis("start")
        assert max(fraction_unexplained(basis, x, y)) < 1e-6
        assert cross_layer_share(basis, x) == 0


def test_depth_and_answer_to_flips_of_the_true_basis() -> None:
    cases = draw_cases(compiled(), 6)
    depths = [path_depth(attribution_graph(each.case, true_basis())) for each in cases]
    # One feature by the query token, two by the last bit, three by the rest: 1 + 1/3 (1 + 1/2).
    assert np.mean(depths) == pytest.approx(1.5, abs=0.1)
    real = [flip_effects(compiled(), each, None) for each in cases]
    own = [flip_effects(compiled(), each, true_basis()) for each in cases]
    assert response(real, own) == pytest.approx(1.0, abs=1e-3)


def test_a_shortcut_does_not_answer_to_flips() -> None:
    """A hand-made cross-layer basis whose first layer writes the later hops' outputs itself."""
    true = true_basis()
    x, _ = mlp_rows(compiled(), training_ids(compiled(), seed=0)[:256])
    zero = {key: torch.zeros_like(value) for key, value in true.decoders.items()}
    rewired = Basis(
        name="shortcut",
        encoders=true.encoders,
        rows=true.rows,
        biases=true.biases,
        decoders={**zero, (0, 0): true.decoders[0, 0], (0, 2): true.decoders[2, 2]},
        constants=true.constants,
        dictionaries=None,
    )
    assert cross_layer_share(rewired, x) == 1.0
    cases = draw_cases(compiled(), 6)
    real = [flip_effects(compiled(), each, None) for each in cases]
    replaced = [flip_effects(compiled(), each, rewired) for each in cases]
    assert abs(response(real, replaced)) < 0.05


def test_judge_ranks_random_last_on_the_true_basis() -> None:
    cases = [each.case for each in draw_cases(compiled(), 4)]
    summary = judge(cases, true_basis(), [1, 2, 4, 8]).summary()
    cpr = {name: figures["cpr"]["value"] for name, figures in summary["methods"].items()}
    assert min(cpr, key=cpr.get) == "random"
    assert summary["faithfulness_of_all_nodes"] == pytest.approx(1.0, abs=1e-4)
    for figures in summary["methods"].values():
        assert figures["cpr"]["low"] <= figures["cpr"]["value"] <= figures["cpr"]["high"]


def test_values_are_put_on_the_right_nodes() -> None:
    case = draw_cases(compiled(), 1)[0].case
    graph, nodes = attribution_graph(case, true_basis()), active_nodes(case, true_basis())
    own = on_nodes(graph, graph.nodes.activation.astype(float), nodes)
    torch.testing.assert_close(own, nodes.activations, atol=1e-5, rtol=1e-5)


def test_the_page_shows_the_tables_of_the_kept_results() -> None:
    results = json.loads((ROOT / "benchmarks/results/faithfulness.json").read_text())
    page = (ROOT / "docs/faithfulness.md").read_text()
    assert tables(results["cases"]) in page


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    if pairs:
        assert roc_auc(scores, positive) == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(roc_auc(scores, positive))


def test_areas_and_faithfulness_by_hand() -> None:
    ends = Ends(full=np.array([3.0, 5.0]), empty=np.array([1.0, 1.0]))
    metrics = np.array([[1.0, 3.0], [3.0, 5.0]])
    assert faithfulness(metrics, ends).tolist() == pytest.approx([1 / 3, 1.0])
    assert areas(np.array([1.0, 1.0, 1.0]), [1, 2, 4]) == (1.0, 0.0)
    assert areas(np.array([0.0, 1.0]), [1, 16]) == (0.5, 0.5)
    assert areas(np.array([1.5, 0.5, 0.5]), [1, 2, 8]) == pytest.approx((2 / 3, 0.5))


def test_intervals_leave_out_prompts_without_a_value() -> None:
    figure = mean_interval(np.array([1.0, np.nan, 3.0]))
    assert (figure["value"], figure["low"], figure["high"]) == (2.0, 1.0, 3.0)


def test_two_hop_training_never_shows_what_is_held_out() -> None:
    generator = torch.Generator().manual_seed(0)
    ids, where, answers = two_hop.training_batch(3000, generator)
    two = where == 3
    city = ids[two, 3] - two_hop.FIRST_CITY
    relation = ids[two, 1] - two_hop.FIRST_RELATION
    assert not two_hop.is_unseen_city(city).any()
    assert not two_hop.is_unseen_pair(city, relation).any()
    right = two_hop.answer_of(two_hop.state_of(city), relation)
    assert torch.equal(answers[two], right)
    every = torch.arange(two_hop.CITIES)
    assert 0.14 < float(two_hop.is_unseen_city(every).float().mean()) < 0.16
    pairs = two_hop.every_pair()
    assert float(two_hop.is_unseen_pair(*pairs).float().mean()) == pytest.approx(0.25, abs=0.01)
