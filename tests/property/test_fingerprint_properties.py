"""Laws of fingerprints on random graphs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, NODE_COLUMNS, Edges, NodeTable
from pellucid.verification.fingerprints.bags import bags
from pellucid.verification.fingerprints.fingerprint import column_names, definitions, fingerprint
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.steps.place import ROLES, StepPlace
from support.step_graphs import random_step_graph, scaled, split, with_isolated_feature

N_LAYERS = 3
Case = tuple[AttributionGraph, StepPlace]


def cases(**fixed: object) -> st.SearchStrategy[Case]:
    arguments: dict[str, object] = {
        "n_layers": st.just(N_LAYERS),
        "n_tokens": st.integers(1, 5),
        "features_per_cell": st.integers(1, 3),
        "n_logits": st.integers(1, 3),
        "density": st.floats(0, 1),
        "n_biases": st.integers(0, 2),
    }
    return st.builds(random_step_graph, st.integers(0, 10**6), **(arguments | fixed))  # type: ignore[arg-type]


graphs = cases()
quick = settings(max_examples=30, deadline=None)
RANGES = {
    name: each.range for each in definitions() for name in each.columns(N_LAYERS)
}  # column -> text
EFFECTS = ("error.effect", "role.effect", "role.operand_effect", "sign.input", "sign.effect")


def assert_same(before: dict[str, float], after: dict[str, float], *, but: tuple[str, ...]) -> None:
    """Equal but for the columns that begin so."""
    for name, value in before.items():
        if not name.startswith(but):
            assert after[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name


@quick
@given(graphs)
def test_all_columns_are_there_finite_and_in_their_range(case: Case) -> None:
    found = fingerprint(*case)
    assert sorted(found) == sorted(column_names(N_LAYERS))
    for name, value in found.items():
        assert type(value) is float, name
        assert np.isfinite(value), name
        low, _, high = RANGES[name].partition("..")
        if RANGES[name] != "any":
            assert value >= float(low) - 1e-6, name
            assert not high or value <= float(high) + 1e-6, name


@quick
@given(graphs, st.integers(0, 10**6))
def test_the_order_of_edges_and_of_features_of_a_cell_does_not_matter(
    case: Case, seed: int
) -> None:
    graph, place = case
    rng = np.random.default_rng(seed)
    nodes, order = graph.nodes, np.arange(len(graph.nodes))
    cells = np.stack([nodes.layer, nodes.position], axis=1)
    for cell in np.unique(cells[nodes.kind == FEATURE], axis=0):
        rows = np.flatnonzero((nodes.kind == FEATURE) & (cells == cell).all(axis=1))
        order[rows] = rng.permutation(rows)
    columns = {name: getattr(nodes, name)[order] for name in NODE_COLUMNS} | {"index": nodes.index}
    new, shuffled = np.argsort(order), rng.permutation(len(graph.edges))
    other = replace(
        graph,
        nodes=NodeTable(label=nodes.label, **columns),
        edges=Edges.from_unsorted(
            target=new[graph.edges.target][shuffled],
            source=new[graph.edges.source][shuffled],
            weight=graph.edges.weight[shuffled],
        ),
    )
    assert_same(fingerprint(graph, place), fingerprint(other, place), but=())
    hashed = [bags(MeasuredGraph(each, place), 1000)["hash"] for each in (graph, other)]
    np.testing.assert_array_equal(hashed[0].numbers, hashed[1].numbers)
    np.testing.assert_allclose(hashed[0].values, hashed[1].values, atol=1e-9)


@quick
@given(graphs, st.sampled_from((0.125, 2.0, 64.0)))
def test_the_scale_of_all_weights_does_not_matter_to_shares(case: Case, factor: float) -> None:
    graph, place = case
    before = fingerprint(graph, place)
    alone = fingerprint(scaled(graph, factor), place)
    assert_same(before, alone, but=("topological.weight", "sign.role", *EFFECTS))
    together = fingerprint(scaled(graph, factor, factor), place)
    units = ("node.activation", "node.kept_activation", "node.weighted_activation")
    assert_same(before, together, but=("topological.weight", "global.target_value", *units))


@quick
@given(graphs)
def test_a_feature_without_edges_changes_only_counts(case: Case) -> None:
    graph, place = case
    counts = (
        *("global.features", "global.active", "global.kept_feature_share"),
        *("node.activation", "node.influence_m", "node.influence_std", "node.cumulative"),
        *("node.active", "node.entropy", "sign.effect_gini", "sign.direct_gini"),
    )
    assert_same(
        fingerprint(graph, place), fingerprint(with_isolated_feature(graph), place), but=counts
    )


@quick
@given(graphs, st.integers(0, 10**6))
def test_a_feature_in_two_halves_carries_what_it_carried(case: Case, which: int) -> None:
    graph, place = case
    features = np.flatnonzero(graph.nodes.kind == FEATURE)
    before = fingerprint(graph, place, ("error", "role", "path", "sign", "node"))
    after = fingerprint(
        split(graph, int(features[which % len(features)])),
        place,
        ("error", "role", "path", "sign", "node"),
    )
    concentrated = (
        *("path.concentration", "sign.direct_gini", "sign.direct_top", "sign.input_gini"),
        *("sign.effect_gini", "sign.effect_top", "node.activation", "node.kept", "node.active"),
        *("node.influence_m", "node.influence_std", "node.cumulative", "node.weighted"),
        *("node.entropy", "node.top", "sign.agreement"),
    )
    assert_same(before, after, but=concentrated)


@quick
@given(graphs)
def test_shares_sum_to_one(case: Case) -> None:
    graph, place = case
    found = fingerprint(graph, place)

    def total(*prefixes: str, roles: bool = False) -> float:
        ends = tuple(f"_{role}" for role in ROLES) if roles else ("",)
        names = [name for name in found if name.startswith(prefixes) and name.endswith(ends)]
        assert names, prefixes
        return sum(found[name] for name in names)

    some = 1.0 if MeasuredGraph(graph, place).influence.any() else 0.0
    assert total("role.feature_", "role.error_", "role.token_") == pytest.approx(some, abs=1e-6)
    assert total("role.all_") == pytest.approx(some, abs=1e-6)
    assert total("role.input_", roles=True) == pytest.approx(some, abs=1e-6) or some == 0
    assert total("error.role_") == pytest.approx(found["error.total"], abs=1e-6)
    layers = [found[f"error.layer_{layer}"] for layer in range(N_LAYERS)]
    assert sum(layers) == pytest.approx(found["error.total"], abs=1e-6)
    assert max(layers) == found["error.layer_max"]
    row = total("path.row_feature_", "path.row_error_", "path.row_token")
    assert row == pytest.approx(some, abs=1e-6)
    assert total("path.token_", "path.error_") in (
        pytest.approx(1, abs=1e-6),
        pytest.approx(0, abs=1e-6),
    )


@quick
@given(cases(consistent=st.just(True)))
def test_effects_of_all_beginnings_sum_to_the_explained_logits(case: Case) -> None:
    measured = MeasuredGraph(*case)
    rows = measured.graph.row_sums()
    begins = np.bincount(measured.edges.target, minlength=len(rows)) == 0
    explained = measured.probability @ rows
    scale = 1 + np.abs(measured.effects).max()
    assert measured.effects[begins].sum() == pytest.approx(explained, abs=2e-4 * scale)


@quick
@given(graphs)
def test_bags_hold_what_the_columns_sum(case: Case) -> None:
    graph, place = case
    measured = MeasuredGraph(graph, place)
    found, numbers = bags(measured, 1000), fingerprint(measured)
    assert all(np.isfinite(bag.values).all() for bag in found.values())
    assert all((np.diff(bag.numbers) > 0).all() for bag in found.values())
    assert all(bag.numbers.max(initial=0) < bag.size for bag in found.values())
    held = sum(value for name, value in numbers.items() if name.startswith("role.feature_"))
    assert found["influence"].values.sum() == pytest.approx(held, abs=1e-6)
    features = graph.nodes.kind == FEATURE
    direct = found["direct"].values.sum()
    assert direct == pytest.approx(measured.direct[features].sum(), abs=1e-5)
