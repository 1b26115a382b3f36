"""Fingerprints of empty graphs, of real steps, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

import pellucid
from pellucid.attribution.explain import Logit, LogitDifference, TopLogits
from pellucid.core.errors import ConfigError, GraphError
from pellucid.graphs.tables import FEATURE, LOGIT, TOKEN, Edges
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.writing import read_written
from pellucid.verification.fingerprints.bags import bags
from pellucid.verification.fingerprints.fingerprint import (
    FAMILIES,
    column_names,
    definitions,
    fingerprint,
)
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.steps.place import StepPlace, places
from support.step_graphs import random_place, random_step_graph

NOTHING = Edges(target=np.zeros(0), source=np.zeros(0), weight=np.zeros(0))


@pytest.mark.parametrize("kinds", [(TOKEN, LOGIT), (FEATURE, TOKEN, LOGIT), (LOGIT,), ()])
def test_graphs_without_edges_have_the_documented_zeros(kinds: tuple[int, ...]) -> None:
    graph, place = random_step_graph(0)
    empty = replace(graph, edges=NOTHING).subgraph(np.isin(graph.nodes.kind, kinds))
    found = fingerprint(empty, place)
    assert sorted(found) == sorted(column_names(graph.n_layers))
    assert all(np.isfinite(value) for value in found.values())
    zero = ("error.", "role.", "path.", "topological.")
    assert not any(value for name, value in found.items() if name.startswith(zero))
    assert all(
        np.isfinite(bag.values).all() for bag in bags(MeasuredGraph(empty, place), 1000).values()
    )


def test_families_can_be_chosen_and_columns_left_out() -> None:
    graph, place = random_step_graph(1)
    found = fingerprint(graph, place, ["error", "path"])
    assert sorted(found) == sorted(column_names(3, ["error", "path"]))
    assert {name.split(".")[0] for name in column_names(3)} == set(FAMILIES)
    lean = column_names(3, without=("length", "confidence"))
    assert "error.total" in lean
    assert not {"global.tokens", "global.target_probability"} & set(lean)
    with pytest.raises(ConfigError, match=r"unknown family of fingerprints 'errors'; use one of"):
        fingerprint(graph, place, ["errors"])


def test_every_column_has_one_definition() -> None:
    names = column_names(4)
    assert len(set(names)) == len(names)
    for each in definitions():
        assert each.text and "|" not in each.text, each.name
        assert each.range == "any" or ".." in each.range


def test_a_place_that_ends_before_the_graph_is_refused() -> None:
    graph, _ = random_step_graph(0, n_tokens=4)
    place = random_place(0, 2, beyond=0)
    with pytest.raises(GraphError, match="graph has 4 tokens, but the step's place ends at 2"):
        fingerprint(graph, place)


def test_a_bag_too_small_for_its_features_is_refused() -> None:
    graph, place = random_step_graph(0)
    largest = graph.nodes.index[graph.nodes.kind == FEATURE].max()
    with pytest.raises(GraphError, match=rf"has feature {largest}, but features_per_layer is 3"):
        bags(MeasuredGraph(graph, place), 3)


def test_operands_are_numbers_and_truth_values_of_the_rewritten_part() -> None:
    graph, place = random_step_graph(3, n_tokens=4, density=1.0)
    roles = ("rewritten", "rewritten", "rewritten", "kept", "mark")
    place = StepPlace(start=4, stop=5, answer=(4, 5), roles=roles)
    graph = replace(graph, tokens=["-12", "+", "true", "7"])
    measured = MeasuredGraph(graph, place)
    at = np.bincount(
        np.maximum(graph.nodes.position, 0), measured.inputs, minlength=4
    )  # biases hold nothing
    found = fingerprint(measured)
    assert found["role.operands"] == pytest.approx(at[0] + at[2])
    assert found["role.operand_part"] == pytest.approx((at[0] + at[2]) / at[:3].sum())
    assert found["role.operand_balance"] == pytest.approx(min(at[0], at[2]) / max(at[0], at[2]))
    assert found["role.copied_part"] == pytest.approx(at[3] / at.sum())


def test_real_steps_of_the_specimen() -> None:
    model, dictionaries = pellucid.load_model("specimen"), pellucid.load_dictionaries("specimen")
    prompt = model.encode("( ( 3 + 4 ) * ( 2 - 5 ) ) =").tolist()
    new = model.encode("( 7 * ( 2 - 5 ) ) = ( 7 * -3 ) = -21 .").tolist()[1:]
    written = read_written(model, LANGUAGES["arithmetic"], prompt, new)
    assert written.chain is not None
    traced = pellucid.Trace(model, written.ids, dictionaries)
    for _, place in places(written.chain):
        position = place.answer[0] - 1
        answer = Logit(written.ids[position + 1])
        graph = traced.graph(answer, position=position, max_features=200)
        found = fingerprint(graph, place)
        assert found["role.operands"] > found["role.input_opening"]  # it reads what it reduces
        assert found["global.tokens"] == position + 1
        assert found["global.active_features"] > found["global.features"] == 200
        against = LogitDifference(answer.token, model.encode("0").tolist()[-1])
        other = fingerprint(traced.graph(against, position=position, max_features=64), place)
        both = traced.graph(TopLogits(max_logits=2, probability_mass=1.0), position=position)
        pair = fingerprint(both, place)
        assert sorted(found) == sorted(other) == sorted(pair)
        assert found["sign.agreement"] == other["sign.agreement"] == 1 > pair["sign.agreement"]
        assert found["sign.runner_up"] == 0 < pair["sign.runner_up"] < 1
