import networkx
import numpy as np
import pytest

from pellucid.graphs.formats.networkx import to_networkx
from pellucid.graphs.identity import node_names
from pellucid.graphs.paths import find_nodes, strongest_paths
from pellucid.graphs.scores import edge_influence, edge_shares, influence
from support.graphs import random_graph


def test_nodes_and_edges_are_those_of_the_graph() -> None:
    graph = random_graph(3)
    found = to_networkx(graph)
    assert list(found) == node_names(graph)
    assert found.number_of_edges() == len(graph.edges)
    assert networkx.is_directed_acyclic_graph(found)
    names = node_names(graph)
    for edge in range(len(graph.edges)):
        ends = names[graph.edges.source[edge]], names[graph.edges.target[edge]]
        assert found.edges[ends]["weight"] == graph.edges.weight[edge]
        assert found.edges[ends]["influence"] == edge_influence(graph)[edge]
    first = found.nodes[names[0]]
    assert (first["kind"], first["layer"], first["index"]) == ("feature", 0, graph.nodes.index[0])
    assert first["influence"] == influence(graph)[0]
    assert found.graph["tokens"] == graph.tokens
    targets = [data["target_value"] for _, data in found.nodes(data=True) if "target_value" in data]
    assert len(targets) == np.isfinite(graph.target_values).sum()


def test_the_strongest_path_is_networkxs_shortest() -> None:
    """A second opinion: the largest product is the least sum of -log."""
    graph = random_graph(5)
    found, names = to_networkx(graph), node_names(graph)
    shares = edge_shares(graph)
    for edge, share in enumerate(shares):
        ends = names[graph.edges.source[edge]], names[graph.edges.target[edge]]
        found.edges[ends]["length"] = -np.log(share) if share > 0 else np.inf
    for token in find_nodes(graph, kind="token").tolist():
        for logit in find_nodes(graph, kind="logit").tolist():
            best = strongest_paths(graph, token, logit, count=1)
            if best:
                length = networkx.dijkstra_path_length(
                    found, names[token], names[logit], weight="length"
                )
                assert best[0].value == pytest.approx(np.exp(-length))
