import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.formats.neuronpedia import cantor, from_neuronpedia, to_neuronpedia
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import cumulative_influence, prune
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE, LOGIT, NODE_COLUMNS
from support.graphs import random_graph

# Neuronpedia's graph-schema.json: required fields and their types.
SCHEMA = {
    "metadata": {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str},
    "nodes": {
        "node_id": str,
        "feature": int,
        "layer": str,
        "ctx_idx": int,
        "feature_type": str,
        "jsNodeId": str,
        "clerp": str,
    },
    "links": {"source": str, "target": str, "weight": float},
}


def export(graph: AttributionGraph, **options: Any) -> dict[str, Any]:
    """The record after a trip through JSON text, as a reader sees it."""
    record = to_neuronpedia(graph, slug="a-graph", scan="tiny_1.0", **options)
    return json.loads(json.dumps(record, allow_nan=False))


@pytest.fixture
def graph() -> AttributionGraph:
    return random_graph(4)


def test_cantor_pairing_is_the_formats_and_unique() -> None:
    assert [cantor(0, 0), cantor(1, 0), cantor(0, 1), cantor(2, 3)] == [0, 1, 2, 18]
    assert len({cantor(layer, index) for layer in range(30) for index in range(30)}) == 900


def test_every_required_field_is_there(graph: AttributionGraph) -> None:
    record = export(graph)
    assert set(record) == {"metadata", "qParams", "nodes", "links", "pellucid"}
    for part, fields in SCHEMA.items():
        for entry in [record[part]] if part == "metadata" else record[part]:
            for name, kind in fields.items():
                assert isinstance(entry[name], kind), (part, name, entry)
    assert record["qParams"]["linkType"] == "both"
    assert record["metadata"]["node_threshold"] == 0.8


def test_ids_are_unique_even_where_a_feature_number_equals_a_layer() -> None:
    graph = random_graph(0, n_tokens=1, features_per_cell=1)
    index = graph.nodes.index.copy()
    index[:3] = (2, 0, 1)  # feature 2 of layer 0 has the old id of layer 2's error
    columns = {name: getattr(graph.nodes, name) for name in NODE_COLUMNS} | {"index": index}
    graph = replace(graph, nodes=replace(graph.nodes, label=graph.nodes.label, **columns))
    nodes = export(graph, node_threshold=None, edge_threshold=None)["nodes"]
    for name in ("node_id", "jsNodeId"):
        assert len({node[name] for node in nodes}) == len(nodes)


def test_a_feature_and_a_logit_as_the_format_writes_them(graph: AttributionGraph) -> None:
    record = export(graph, node_threshold=None, edge_threshold=None)
    first = record["nodes"][0]
    number = int(graph.nodes.index[0])
    assert first["node_id"] == f"0_{number}_0"
    assert first["feature"] == cantor(0, number)
    assert first["feature_type"] == "cross layer transcoder"
    assert np.float32(first["activation"]) == graph.nodes.activation[0]
    logit = next(node for node in record["nodes"] if node["feature_type"] == "logit")
    at = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    assert logit["layer"] == str(graph.n_layers + 1)
    assert logit["clerp"] == (
        f'Output "{graph.nodes.label[at]}" (p={graph.nodes.probability[at]:.3f})'
    )
    assert logit["is_target_logit"]
    assert sum(node["is_target_logit"] for node in record["nodes"]) == 1
    token = next(node for node in record["nodes"] if node["feature_type"] == "embedding")
    assert (token["layer"], token["node_id"][:2]) == ("E", "E_")


def test_influence_is_the_cumulative_share_in_the_unpruned_graph(graph: AttributionGraph) -> None:
    cumulative = cumulative_influence(influence(graph))
    by_id = {node["node_id"]: node for node in export(graph)["nodes"]}
    for node in np.flatnonzero(graph.nodes.is_kind(FEATURE)):
        place = (graph.nodes.layer[node], graph.nodes.index[node], graph.nodes.position[node])
        if (name := "_".join(str(part) for part in place)) in by_id:
            assert by_id[name]["influence"] == pytest.approx(cumulative[node])


def assert_equal(left: AttributionGraph, right: AttributionGraph) -> None:
    for name in NODE_COLUMNS:
        if name != "activation":
            np.testing.assert_array_equal(getattr(left.nodes, name), getattr(right.nodes, name))
    features = left.nodes.is_kind(FEATURE)
    np.testing.assert_array_equal(left.nodes.activation[features], right.nodes.activation[features])
    for column in ("target", "source", "weight"):
        np.testing.assert_array_equal(getattr(left.edges, column), getattr(right.edges, column))
    assert left.nodes.label == right.nodes.label
    assert (left.tokens, left.prompt, left.n_layers) == (right.tokens, right.prompt, right.n_layers)


@pytest.mark.parametrize("thresholds", [(0.8, 0.98), (0.5, 0.6)])
def test_what_is_written_is_read_back_exactly(
    graph: AttributionGraph, thresholds: tuple[float, float]
) -> None:
    record = export(graph, node_threshold=thresholds[0], edge_threshold=thresholds[1])
    assert_equal(from_neuronpedia(record), prune(graph, *thresholds))


def test_nodes_may_come_in_any_order(graph: AttributionGraph) -> None:
    record = export(graph)
    rng = np.random.default_rng(0)
    is_logit = [node["feature_type"] == "logit" for node in record["nodes"]]
    others = [node for node, logit in zip(record["nodes"], is_logit, strict=True) if not logit]
    logits = [node for node, logit in zip(record["nodes"], is_logit, strict=True) if logit]
    record["nodes"] = logits + [others[i] for i in rng.permutation(len(others))]
    rng.shuffle(record["links"])
    assert_equal(from_neuronpedia(record), prune(graph))


def test_the_earlier_error_ids_are_read(graph: AttributionGraph) -> None:
    record = export(graph)
    new_name = {}
    for node in record["nodes"]:
        if node["feature_type"] == "mlp reconstruction error":
            new_name[node["node_id"]] = f"0_{node['layer']}_{node['ctx_idx']}"
            node["node_id"] = new_name[node["node_id"]]
    assert new_name
    for link in record["links"]:
        link["source"] = new_name.get(link["source"], link["source"])
    assert_equal(from_neuronpedia(record), prune(graph))


@pytest.mark.parametrize("text", ['(p=0.9) "quoted"', "</script>", "new\nline", "\u2028", ""])
def test_awkward_token_texts_survive(text: str) -> None:
    graph = random_graph(2)
    labels = list(graph.nodes.label)
    labels[-1] = text
    graph = replace(graph, nodes=replace(graph.nodes, label=labels))
    assert from_neuronpedia(export(graph)).nodes.label[-1] == text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"slug": "../up"}, r"slug is '\.\./up'; use only letters"),
        ({"slug": ""}, "slug is ''"),
        ({"scan": "a b"}, "scan is 'a b'"),
        ({"slug": "ok\n"}, "slug is"),
        ({"node_threshold": None}, "both thresholds"),
        ({"node_threshold": 2.0}, "between 0 and 1"),
    ],
)
def test_bad_names_and_thresholds_are_refused(
    graph: AttributionGraph, names: dict[str, Any], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        to_neuronpedia(graph, **({"slug": "a", "scan": "b"} | names))


def damage(record: dict[str, Any], part: str, number: int, field: str, value: Any) -> Any:
    record[part][number][field] = value
    return record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [], "is a list, not an object"),
        (lambda r: {"nodes": [], "links": []}, "usable 'metadata'|no 'metadata'"),
        (lambda r: r | {"nodes": []}, "no 'nodes'"),
        (lambda r: r | {"links": None}, "no 'links'"),
        (lambda r: r | {"metadata": {"slug": "a"}}, "metadata entry 0 lacks 'scan'"),
        (lambda r: r | {"nodes": [{}]}, "nodes entry 0 lacks 'node_id'"),
        (lambda r: r | {"nodes": [7]}, "no usable 'nodes'"),
        (lambda r: r | {"nodes": r["nodes"] + r["nodes"][:1]}, "share the id"),
        (lambda r: damage(r, "nodes", 0, "feature_type", "lorsa"), "'lorsa' is not known"),
        (lambda r: damage(r, "nodes", 0, "node_id", "0_1"), "cannot be read"),
        (lambda r: damage(r, "nodes", 0, "node_id", 5), "cannot be read"),
        (lambda r: damage(r, "nodes", 0, "ctx_idx", 1e999), "cannot be read"),
        (lambda r: damage(r, "nodes", 0, "ctx_idx", 10**30), "not numbers"),
        (lambda r: damage(r, "nodes", 0, "ctx_idx", -5), "no position"),
        (lambda r: damage(r, "nodes", 0, "activation", float("nan")), "not a finite number"),
        (lambda r: damage(r, "links", 0, "source", "9_9_9"), "'9_9_9', which is no node"),
        (lambda r: damage(r, "links", 0, "weight", "heavy"), "cannot be read"),
        (lambda r: damage(r, "links", 0, "weight", 1e300), "not finite"),
        (lambda r: r | {"links": r["links"] + r["links"][:1]}, "repeated"),
    ],
)
def test_malformed_records_are_one_clear_error(
    graph: AttributionGraph, change: Any, message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        from_neuronpedia(change(export(graph)))
