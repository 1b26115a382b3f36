"""Laws of influence and pruning on random graphs."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune, surviving
from pellucid.graphs.scores import edge_influence, influence, logit_weights, scores
from pellucid.graphs.tables import FEATURE, NODE_COLUMNS, Edges, NodeTable
from support.graphs import random_graph

graphs = st.builds(
    random_graph,
    st.integers(0, 10**6),
    n_layers=st.integers(1, 5),
    n_tokens=st.integers(1, 5),
    features_per_cell=st.integers(1, 3),
    n_logits=st.integers(1, 4),
    density=st.floats(0, 1),
    n_biases=st.integers(0, 2),
)
shares = st.floats(0.05, 1)
quick = settings(max_examples=60, deadline=None)


@quick
@given(graphs, st.booleans())
def test_influence_is_conserved(graph: AttributionGraph, include_bias: bool) -> None:
    """What leaves the logits arrives, whole, at the nodes that have no inputs of their own."""
    reached = influence(graph, include_bias=include_bias)
    flow = edge_influence(graph, include_bias=include_bias)
    size = len(graph.nodes)
    has_input = np.bincount(graph.edges.target, flow, minlength=size) > 0
    start = logit_weights(graph)
    np.testing.assert_allclose(reached[~has_input].sum(), start[has_input].sum(), atol=1e-9)
    # And at every node: in = out.
    np.testing.assert_allclose(
        np.bincount(graph.edges.source, flow, minlength=size), reached, atol=1e-12
    )


@quick
@given(graphs)
def test_scores_are_shares(graph: AttributionGraph) -> None:
    for value in scores(graph):
        assert np.isnan(value) or -1e-12 <= value <= 1 + 1e-12


@quick
@given(graphs, st.floats(1e-3, 1e3), st.booleans())
def test_the_scale_and_sign_of_a_row_do_not_matter(
    graph: AttributionGraph, scale: float, flip: bool
) -> None:
    target = graph.edges.target
    factor = np.where(target == target[:1].sum(), -scale if flip else scale, 1)
    weight = (graph.edges.weight * factor).astype(np.float32)
    scaled = replace(graph, edges=Edges(target=target, source=graph.edges.source, weight=weight))
    np.testing.assert_allclose(influence(scaled), influence(graph), rtol=1e-5, atol=1e-9)


@quick
@given(graphs, shares, shares, shares)
def test_a_higher_node_threshold_keeps_more(
    graph: AttributionGraph, first: float, second: float, edge_threshold: float
) -> None:
    low, high = sorted((first, second))
    few, _ = surviving(graph, low, 1.0)
    many, _ = surviving(graph, high, 1.0)
    assert few.sum() <= many.sum()
    fewer_edges = surviving(graph, high, min(edge_threshold, 0.99))[1]
    assert not (fewer_edges & ~surviving(graph, high, 1.0)[1]).any()


@quick
@given(graphs)
def test_pruning_at_full_thresholds_is_idempotent(graph: AttributionGraph) -> None:
    once = prune(graph, 1.0, 1.0)
    twice = prune(once, 1.0, 1.0)
    assert len(twice.nodes) == len(once.nodes)
    np.testing.assert_array_equal(twice.edges.weight, once.edges.weight)


@quick
@given(graphs, shares, st.randoms(use_true_random=False))
def test_the_numbering_of_features_does_not_matter(
    graph: AttributionGraph, threshold: float, random: object
) -> None:
    """Renumbering features within their (layer, position) cells permutes the result alone."""
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    nodes = graph.nodes
    order = np.arange(len(nodes))
    for layer, position in set(zip(nodes.layer.tolist(), nodes.position.tolist(), strict=True)):
        cell = np.flatnonzero(
            (nodes.kind == FEATURE) & (nodes.layer == layer) & (nodes.position == position)
        )
        order[cell] = rng.permutation(cell)
    # `order[new] = old`; feature numbers stay sorted because they are handed out anew.
    columns = {name: getattr(nodes, name)[order] for name in NODE_COLUMNS} | {"index": nodes.index}
    new_of_old = np.argsort(order)
    shuffled = replace(
        graph,
        nodes=NodeTable(label=[nodes.label[old] for old in order], **columns),
        edges=Edges.from_unsorted(
            target=new_of_old[graph.edges.target],
            source=new_of_old[graph.edges.source],
            weight=graph.edges.weight,
        ),
        target_values=graph.target_values[order],
    )
    np.testing.assert_allclose(influence(shuffled), influence(graph)[order], atol=1e-12)
    np.testing.assert_allclose(scores(shuffled), scores(graph), atol=1e-12)
    assert (
        surviving(shuffled, threshold, 0.98)[0].sum() == surviving(graph, threshold, 0.98)[0].sum()
    )
