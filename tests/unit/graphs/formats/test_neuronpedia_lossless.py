"""What goes through the JSON format comes back: our graphs, others' files, the old ids."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import GraphError
from pellucid.graphs.formats.neuronpedia import from_neuronpedia, to_neuronpedia
from pellucid.graphs.formats.neuronpedia_reader import read_neuronpedia
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import prune
from pellucid.graphs.supernodes import supernodes_by_hand, supernodes_of, with_supernodes
from pellucid.graphs.tables import EDGE_COLUMNS, ERROR, FEATURE
from support.graph_files import assert_same, full_graph
from support.graphs import random_graph
from support.relabel import reordered

NAMES = {"slug": "a-graph", "scan": "tiny"}
WHOLE = {"node_threshold": None, "edge_threshold": None}
seeds = st.integers(0, 10**6)
few = settings(max_examples=15)


def through_text(record: Any) -> Any:
    return json.loads(json.dumps(record, allow_nan=False))


@few
@given(seeds)
def test_a_whole_graph_comes_back_with_all_it_holds(seed: int) -> None:
    graph = full_graph(seed)
    back = from_neuronpedia(through_text(to_neuronpedia(graph, **NAMES, **WHOLE)))
    assert_same(back, graph)
    assert back.metadata["model"] == "tiny"


@few
@given(seeds, st.sampled_from([0.5, 0.8, 1.0]))
def test_a_pruned_graph_comes_back_pruned(seed: int, threshold: float) -> None:
    graph = full_graph(seed)
    record = through_text(to_neuronpedia(graph, **NAMES, node_threshold=threshold))
    assert_same(from_neuronpedia(record), prune(graph, threshold))


def foreign(seed: int) -> dict[str, Any]:
    """A file of another program: nothing of ours, with a view and descriptions of its own."""
    record = through_text(to_neuronpedia(random_graph(seed), **NAMES))
    del record["pellucid"]
    record["metadata"]["info"] = {"generator": {"name": "circuit-tracer"}, "note": "é"}
    record["metadata"]["generation_settings"] = {"max_n_logits": 5}
    record["metadata"]["transcoder_list"] = ["a", "b"]
    ids = [node["node_id"] for node in record["nodes"]]
    record["qParams"] |= {
        "pinnedIds": ids[:2],
        "clickedId": ids[0],
        "sg_pos": "1,2",
        "supernodes": [["first", *ids[:2]], ["last", ids[-1]]],
    }
    for number, node in enumerate(record["nodes"]):
        if node["feature_type"] != "logit":
            node["influence"] = number / 1000
    return record


@few
@given(seeds)
def test_another_programs_file_comes_back(seed: int) -> None:
    record = foreign(seed)
    again = through_text(to_neuronpedia(from_neuronpedia(record), **NAMES, **WHOLE))
    del again["pellucid"]
    assert again["metadata"] == record["metadata"]
    assert again["qParams"] == record["qParams"]
    assert again["nodes"] == record["nodes"]

    def by_ends(link: dict[str, Any]) -> tuple[str, str]:
        return link["target"], link["source"]

    assert sorted(again["links"], key=by_ends) == sorted(record["links"], key=by_ends)


def test_reading_changes_nothing_in_the_record() -> None:
    record = through_text(to_neuronpedia(full_graph(1), **NAMES, **WHOLE))
    before = json.dumps(record)
    graph = from_neuronpedia(record)
    graph.metadata["model"] = "other"
    assert json.dumps(record) == before


def test_pruning_what_was_read_measures_anew() -> None:
    graph = from_neuronpedia(foreign(3))
    again = to_neuronpedia(graph, **NAMES, node_threshold=0.5)
    assert again["metadata"]["node_threshold"] == 0.5
    assert all(node["influence"] != 0.001 for node in again["nodes"])


def test_supernodes_go_out_and_come_back() -> None:
    graph = random_graph(4)
    groups = supernodes_by_hand(graph, {"pair": [0, 1], "<b>end</b>": [len(graph.nodes) - 1]})
    record = through_text(to_neuronpedia(with_supernodes(graph, groups), **NAMES, **WHOLE))
    ids = [node["node_id"] for node in record["nodes"]]
    assert record["qParams"]["supernodes"] == [["pair", *ids[:2]], ["<b>end</b>", ids[-1]]]
    assert supernodes_of(from_neuronpedia(record)) == groups


def with_old_ids(record: dict[str, Any]) -> dict[str, Any]:
    """The ids of circuit-tracer before 0.5.1: an error of layer l is called 0_l_p."""
    old = {}
    for node in record["nodes"]:
        if node["feature_type"] == "mlp reconstruction error":
            old[node["node_id"]] = node["node_id"] = f"0_{node['layer']}_{node['ctx_idx']}"
    by_new = {f"{i.split('_')[1]}_-1_{i.split('_')[2]}": i for i in old.values()}
    for link in record["links"]:
        link["source"] = by_new.get(link["source"], link["source"])
    return record


def colliding(seed: int, density: float) -> AttributionGraph:
    """A graph in which some features of layer 0 bear the number of a layer."""
    graph = random_graph(seed, features_per_cell=3, density=density, n_biases=0)
    index = graph.nodes.index.copy()
    rng = np.random.default_rng(seed)
    for first in range(0, 12, 3):
        index[first : first + 2] = np.sort(rng.choice(4, 2, replace=False))
    return reordered(graph, index)


@given(seeds, st.sampled_from([0.1, 0.3, 0.9]))
def test_old_colliding_ids_are_told_apart_or_refused(seed: int, density: float) -> None:
    graph = colliding(seed, density)
    record = with_old_ids(through_text(to_neuronpedia(graph, **NAMES, **WHOLE)))
    del record["pellucid"]
    ids = [node["node_id"] for node in record["nodes"]]
    assert len(set(ids)) < len(ids)
    try:
        found = from_neuronpedia(record)
    except GraphError as error:
        assert "may mean a feature or an error" in str(error)
        assert density < 0.9
        return
    for name in EDGE_COLUMNS:
        np.testing.assert_array_equal(getattr(found.edges, name), getattr(graph.edges, name))
    kinds = found.nodes.is_kind(FEATURE, ERROR)
    assert kinds.sum() == graph.nodes.is_kind(FEATURE, ERROR).sum()


def test_the_chance_of_a_logit_is_read_from_its_text_too() -> None:
    record = through_text(to_neuronpedia(random_graph(1), **NAMES))
    for node in record["nodes"]:
        del node["token_prob"]
    found = from_neuronpedia(record).nodes
    expected = from_neuronpedia(through_text(to_neuronpedia(random_graph(1), **NAMES))).nodes
    np.testing.assert_allclose(found.probability, expected.probability, atol=5e-4)
    assert found.probability.max() > 0.1


def test_layers_may_be_numbers() -> None:
    """As Neuronpedia's schema allows."""
    record = through_text(to_neuronpedia(random_graph(1), **NAMES))
    expected = from_neuronpedia(through_text(record))
    for node in record["nodes"]:
        if node["layer"] != "E":
            node["layer"] = int(node["layer"])
    assert_same(from_neuronpedia(record), expected)


def test_a_file_is_read_and_its_faults_name_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(to_neuronpedia(random_graph(1), **NAMES)), encoding="utf-8")
    assert read_neuronpedia(path).n_layers == 3
    with pytest.raises(GraphError, match=r"the limit is 10; prune"):
        read_neuronpedia(path, max_bytes=10)
    with pytest.raises(GraphError, match=r"none\.json cannot be read \(No such file"):
        read_neuronpedia(tmp_path / "none.json")
    for text, message in (
        (b"[" * 100_000, "not JSON that can be read"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"nodes": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", r"a\.json: graph JSON is a list"),
    ):
        path.write_bytes(text)
        with pytest.raises(GraphError, match=message):
            read_neuronpedia(path)
