"""The causal test of groups: exact where the model is linear, and its random groups are matched."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.attribution.checks import groups, measure
from pellucid.attribution.checks.groups import check_groups, random_group, with_group_checks
from pellucid.attribution.linearise import linearise
from pellucid.attribution.trace import trace
from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import ERROR, FEATURE
from pellucid.models.load import load_model
from pellucid.replacement.model import ReplacementModel
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]


@pytest.fixture(scope="module")
def traced():
    model = load_model(tiny_model("llama"), word_tokenizer())
    dictionaries = tiny_transcoders(model, skip=True)
    graph = trace(model, PROMPT, dictionaries, causal=False)
    return linearise(ReplacementModel(model, dictionaries).local(model.encode_ids(PROMPT))), graph


def cell(graph, layer, position):
    nodes = graph.nodes
    here = nodes.is_kind(FEATURE) & (nodes.layer == layer) & (nodes.position == position)
    return np.flatnonzero(here).tolist()


def test_edges_add_up_exactly_under_the_full_freeze(traced):
    linear, graph = traced
    proposals = [cell(graph, 0, 1), cell(graph, 0, 2) + cell(graph, 1, 2), cell(graph, 1, 4)]
    for check in check_groups(linear, graph, proposals, controls=3):
        assert check.error_frozen < 1e-4
        assert check.readings > 5
        assert check.p >= 0.25
        assert not check.accepted, "three random groups can never show p <= 0.05"


def test_a_group_in_a_linear_model_is_accepted_and_a_wrong_prediction_is_not(traced, monkeypatch):
    """With every freedom frozen but what the graph lets answer, sums of parts are exact."""
    linear, graph = traced
    real = groups.first_order_effects

    def as_predicted(local, deltas, probes, freedom):
        return real(local, deltas, probes, "features")

    monkeypatch.setattr(groups, "probed_effects", as_predicted)
    proposals = [cell(graph, 0, 1)[:2]]
    (sound,) = check_groups(linear, graph, proposals, names=["first"])
    assert sound.accepted, sound.reason
    assert sound.error_real < 1e-6
    assert sound.error_parts < 1e-6
    assert sound.p == 1 / 40
    assert sound.name == "first"
    assert sound.features == tuple((0, 1, int(graph.nodes.index[n])) for n in proposals[0])
    assert "within 0%" in sound.reason

    monkeypatch.setattr(groups, "first_order_effects", lambda *arguments: 2.5 * real(*arguments))
    (wrong,) = check_groups(linear, graph, proposals)
    assert not wrong.accepted
    assert wrong.error_real == pytest.approx(1.5, rel=1e-3)
    assert "differs from the sum of the parts' predictions by 150%" in wrong.reason


def test_a_prediction_that_fits_random_groups_as_well_is_refused(traced, monkeypatch):
    linear, graph = traced
    real = measure.probed_effects

    def same_for_all(local, deltas, probes, freedom):
        effects = real(local, deltas, probes, freedom)
        return torch.ones_like(effects)

    monkeypatch.setattr(groups, "probed_effects", same_for_all)
    (check,) = check_groups(linear, graph, [cell(graph, 0, 1)], tolerance=100.0)
    assert check.p == 1.0
    assert not check.accepted
    assert "random groups" in check.reason


def test_random_groups_are_other_features_of_the_same_cells(traced):
    _, graph = traced
    nodes, rng = graph.nodes, np.random.default_rng(0)
    member = cell(graph, 1, 3)[:1]
    for _ in range(5):
        (pick,) = random_group(graph, np.array(member), rng)
        assert pick != member[0]
        assert (nodes.layer[pick], nodes.position[pick]) == (1, 3)
    whole = np.array(cell(graph, 1, 3))
    picks = random_group(graph, whole, rng)
    assert len(set(picks.tolist())) == len(whole)
    assert not set(picks.tolist()) & set(whole.tolist())
    assert (nodes.layer[picks] == 1).all()


def test_checks_are_kept_in_the_graph_file(traced, tmp_path):
    linear, graph = traced
    checks = check_groups(linear, graph, [cell(graph, 0, 1)], controls=1)
    with_group_checks(graph, checks).save(tmp_path / "graph")
    loaded = AttributionGraph.load(tmp_path / "graph").metadata["supernode_checks"]
    assert loaded[0]["features"] == [list(feature) for feature in checks[0].features]
    assert loaded[0]["accepted"] is checks[0].accepted
    assert check_groups(linear, graph, []) == []


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        ([], r"group 0 is \[\]; give at least one node"),
        ([0, 0], "each node once"),
        ([10**6], "group 0 holds node 1000000, which is no feature"),
        ("error", "which is no feature of the graph"),
    ],
)
def test_what_is_no_group_of_features_is_refused(traced, proposal, message):
    linear, graph = traced
    if proposal == "error":
        proposal = [int(np.flatnonzero(graph.nodes.is_kind(ERROR))[0])]
    with pytest.raises(GraphError, match=message):
        check_groups(linear, graph, [proposal])
    with pytest.raises(GraphError, match="2 names for 1 groups"):
        check_groups(linear, replace(graph), [[0]], names=["a", "b"])
