"""Hostile and damaged graphs: one clear `GraphError` each, in bounded time and memory.

The table goes through text, as a file would; what is written by hand is what an attacker writes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.container import write_container
from pellucid.graphs.formats.neuronpedia import from_neuronpedia, to_neuronpedia
from pellucid.graphs.formats.neuronpedia_reader import read_neuronpedia
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html
from support.graph_files import contents
from support.graphs import causal_record, random_graph

Change = Callable[[Any], Any]
LONG = 10**5


def node(number: int, **fields: Any) -> Change:
    return lambda record: record["nodes"][number].update(fields)


def link(number: int, **fields: Any) -> Change:
    return lambda record: record["links"][number].update(fields)


def part(name: str, **fields: Any) -> Change:
    return lambda record: record[name].update(fields)


def backwards(record: Any) -> None:
    """A cycle of two features."""
    features = [n["node_id"] for n in record["nodes"] if n["layer"] in ("0", "2")]
    first, last = features[0], next(name for name in features if name[0] == "2")
    record["links"] = [
        {"source": first, "target": last, "weight": 1},
        {"source": last, "target": first, "weight": 1},
    ]


def to_itself(record: Any) -> None:
    name = record["nodes"][0]["node_id"]
    record["links"] = [{"source": name, "target": name, "weight": 1}]


def feature_number(number: int) -> Change:
    """A node without links, whose feature has this number."""

    def change(record: Any) -> None:
        record["nodes"][0]["node_id"] = f"0_{number}_0"
        record["links"] = record["pellucid"]["bias_links"] = []

    return change


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


TABLE: dict[str, tuple[Change, str]] = {
    # Numbers
    "a position of 1e999": (node(0, ctx_idx=float("inf")), "cannot be read"),
    "a position that is not a number": (node(0, ctx_idx=float("nan")), "cannot be read"),
    "a huge position": (node(0, ctx_idx=10**30), "not numbers"),
    "a position after the prompt": (node(0, ctx_idx=99), "position 99, outside"),
    "a negative position": (node(0, ctx_idx=-1), "no position"),
    "a huge layer": (node(0, layer=str(10**12)), "int32"),
    "a layer beyond the model": (node(0, layer="77"), "lies at layer 77"),
    "a negative layer": (node(0, layer="-3"), "lies at layer -3|out of order"),
    "a model of a billion layers": (part("pellucid", n_layers=10**9), "at most 10000 can be read"),
    "a feature number of 5,000 digits": (node(0, node_id=f"0_{'9' * 5000}_0"), "cannot be read"),
    "a feature number beyond 64 bits": (feature_number(10**30), "not numbers"),
    "an infinite activation": (node(0, activation=1e999), "not a finite number"),
    "an activation beyond float32": (node(0, activation=1e300), "activation that is not finite"),
    "a probability above 1": (node(-1, token_prob=7), "probability outside 0..1"),
    "a weight of 1e999": (link(0, weight=1e999), "not a finite number"),
    "a weight that is not a number": (link(0, weight=float("nan")), "not a finite number"),
    "a weight beyond float32": (link(0, weight=1e300), "weight that is not finite"),
    "a weight in words": (link(0, weight="heavy"), "cannot be read"),
    # Structure
    "a cycle": (backwards, "not later in the model"),
    "an edge to itself": (to_itself, "not later in the model"),
    "a node listed twice": (lambda r: r["nodes"].append(r["nodes"][0]), "share the id"),
    "one feature under two ids": (
        lambda r: r["nodes"].append(r["nodes"][0] | {"node_id": r["nodes"][0]["node_id"] + "9"}),
        "listed twice|no usable",
    ),
    "a link listed twice": (lambda r: r["links"].append(r["links"][0]), "repeated"),
    "a link to nowhere": (link(0, target="x" * LONG), "names 'xxx.*which is no node"),
    "a link from nowhere": (link(0, source="0_0_0"), "'0_0_0', which is no node"),
    "a link from a list": (link(0, source=["a"]), "which is no node"),
    "a link that is a number": (lambda r: r["links"].append(3), "no usable 'links'"),
    "no nodes": (lambda r: r["nodes"].clear(), "no 'nodes'"),
    "nodes in an object": (lambda r: r.update(nodes={}), "no 'nodes'"),
    # Types
    "an id that is a number": (node(0, node_id=7), "cannot be read"),
    "an id that is null": (node(0, node_id=None), "cannot be read"),
    "an unknown kind": (node(0, feature_type="<script>"), "is not known"),
    "a kind that is a list": (node(0, feature_type=[]), "cannot be read"),
    "a prompt that is a number": (part("metadata", prompt=3), "prompt is not a text"),
    "tokens that are numbers": (part("metadata", prompt_tokens=[1, 2, 3, 4]), "list of texts"),
    "tokens in an object": (part("metadata", prompt_tokens={"a": 1}), "list of texts"),
    "no tokens": (part("metadata", prompt_tokens=[]), "cannot be read|tokens must be"),
    "a view that is a list": (lambda r: r.update(qParams=[1]), "qParams is not an object"),
    "supernodes of numbers": (part("qParams", supernodes=[["a", 1]]), "supernodes is not a list"),
    "supernodes in an object": (part("qParams", supernodes={"a": 1}), "supernodes is not a list"),
    "metadata nested deep": (part("metadata", info=nested(10**5)), "nests too deep"),
    # What we add ourselves
    "a later pellucid": (part("pellucid", schema_version=99), "schema version 99.*upgrade"),
    "a version in words": (part("pellucid", schema_version="x"), "schema version x"),
    "our part as a list": (lambda r: r.update(pellucid=[1]), "'pellucid' is not an object"),
    "biases in an object": (part("pellucid", biases={}), "'biases' of 'pellucid' is not a list"),
    "a bias without a layer": (part("pellucid", biases=[{"node_id": "b"}]), "cannot be read"),
    "a bias with a list as id": (
        part("pellucid", biases=[{"node_id": [], "layer": 0, "ctx_idx": -1, "clerp": ""}]),
        "not a text",
    ),
    "values in a list": (part("pellucid", target_values=[]), "is not a dict"),
    "values in words": (part("pellucid", n_layers="3"), "a model of 3 layers"),
    "scores in a list": (part("pellucid", scores=[1]), "'scores'"),
    "a check of no rows": (part("pellucid", causal={"rows": 3}), "rows are not a list"),
    "a check of another graph": (part("pellucid", causal={"rows": [{"node": 10**9}]}), "names"),
    "a check of a word": (part("pellucid", causal={"rows": [{"node": "a"}]}), "names node 'a'"),
}


def whole_record() -> dict[str, Any]:
    graph = random_graph(4)
    graph = replace(graph, causal=causal_record(graph))
    record = to_neuronpedia(graph, slug="a", scan="b", node_threshold=None, edge_threshold=None)
    copy: dict[str, Any] = json.loads(json.dumps(record))
    return copy


@pytest.mark.parametrize("name", TABLE)
def test_hostile_json_is_one_clear_error(name: str) -> None:
    change, message = TABLE[name]
    record = whole_record()
    change(record)
    with pytest.raises(GraphError, match=message) as found:
        from_neuronpedia(record)
    assert len(str(found.value)) < 400
    assert "\n" not in str(found.value)


def test_constants_that_json_does_not_have(tmp_path: Path) -> None:
    """Python reads NaN and Infinity; as text they must be refused like the numbers."""
    path = tmp_path / "a.json"
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        record = whole_record()
        record["links"][0]["weight"] = 12345.5
        path.write_text(json.dumps(record).replace("12345.5", text), encoding="utf-8")
        with pytest.raises(GraphError, match="not a finite number"):
            read_neuronpedia(path)


def test_a_long_list_of_nothing_is_refused_at_its_first_entry() -> None:
    for part_name in ("nodes", "links"):
        with pytest.raises(GraphError, match=f"{part_name} entry 0 lacks"):
            from_neuronpedia(whole_record() | {part_name: [{}] * 10**6})


def test_many_supernodes_and_pins_are_only_data() -> None:
    record = whole_record()
    record["qParams"]["supernodes"] = [["x", "y"]] * LONG
    record["qParams"]["pinnedIds"] = ["z"] * LONG
    assert len(from_neuronpedia(record).nodes) > 0


HTML = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


def test_html_in_labels_stays_text() -> None:
    record = whole_record()
    for entry in record["nodes"]:
        entry["clerp"] = HTML
    record["metadata"]["prompt"] = HTML
    record["metadata"]["prompt_tokens"] = [HTML] * 4
    record["qParams"]["supernodes"] = [[HTML, record["nodes"][0]["node_id"]]]
    graph = from_neuronpedia(record)
    assert graph.nodes.label[0] == HTML
    page = to_html(graph)
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    again = to_neuronpedia(graph, slug="a", scan="b", node_threshold=None, edge_threshold=None)
    assert again["qParams"]["supernodes"][0][0] == HTML


FILE_TABLE: dict[str, tuple[dict[str, Any], str]] = {
    "a later schema": ({"schema_version": 2}, "schema version 2, this pellucid reads up to 1"),
    "a schema of 1e999": ({"schema_version": 10**400}, "schema version|damaged header"),
    "a schema in words": ({"schema_version": "new"}, "damaged header"),
    "another kind": ({"kind": "dictionaries"}, "holds 'dictionaries'"),
    "rows that are no list": ({"causal": {"rows": 5}}, "rows are not a list"),
    "rows that are no records": ({"causal": {"rows": [5]}}, "rows are not a list"),
    "a row of a word": ({"causal": {"rows": [{"node": "0"}]}}, "names node '0'"),
    "layers below zero": ({"n_layers": -5}, "outside -5 layers"),
    "labels that are numbers": ({"labels": [1] * 36}, "labels must be text|differ in length"),
    "tokens in an object": ({"tokens": {}}, "tokens"),
    "metadata in a list": ({"metadata": []}, "metadata"),
}


@pytest.mark.parametrize("name", FILE_TABLE)
def test_a_hostile_graph_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    change, message = FILE_TABLE[name]
    path = tmp_path / "a.graph"
    random_graph(4).save(path)
    arrays, header = contents(path)
    write_container(path, arrays, header | change)
    with pytest.raises(GraphError, match=message):
        AttributionGraph.load(path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nodes.kind", np.full(45, 9, np.uint8), "unknown kind"),
        (
            "nodes.layer",
            np.full(45, 2**31 - 1, np.int32),
            "lies at layer|out of order|with a layer",
        ),
        ("nodes.activation", np.full(45, np.nan, np.float32), "activation that is not finite"),
        ("nodes.index", np.zeros((45, 2), np.int64), "shape"),
        ("nodes.position", np.zeros(3, np.int32), "differ in length"),
        ("edges.source", np.zeros(0, np.int32), "differ in length"),
        ("target_values", np.full(45, np.inf, np.float32), "infinite value"),
    ],
)
def test_hostile_arrays_are_one_clear_error(
    name: str, values: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.graph"
    graph = random_graph(4)
    assert len(graph.nodes) == 45
    graph.save(path)
    arrays, header = contents(path)
    write_container(path, arrays | {name: values}, header)
    with pytest.raises(GraphError, match=message):
        AttributionGraph.load(path)
