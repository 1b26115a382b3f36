"""The graph file: what is written comes back, and nothing damaged or hostile is believed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pellucid.core.errors import GraphError, StorageError
from pellucid.graphs.container import write_container
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import EDGE_COLUMNS, NODE_COLUMNS
from support.graph_files import contents
from support.graphs import causal_record, random_graph


@pytest.fixture
def graph() -> AttributionGraph:
    graph = random_graph(3)
    return replace(
        graph,
        scores={"replacement": 0.7, "completeness": 0.9},
        causal=causal_record(graph),
        row_sum_max_error=2e-6,
        prompt='a "prompt" \u2028 </script> \U0001f980',
    )


@pytest.fixture
def saved(graph: AttributionGraph, tmp_path: Path) -> Path:
    path = tmp_path / "a.graph"
    graph.save(path)
    return path


def test_a_graph_comes_back_equal(graph: AttributionGraph, saved: Path) -> None:
    loaded = AttributionGraph.load(saved)
    for name in NODE_COLUMNS:
        np.testing.assert_array_equal(getattr(loaded.nodes, name), getattr(graph.nodes, name))
    for name in EDGE_COLUMNS:
        np.testing.assert_array_equal(getattr(loaded.edges, name), getattr(graph.edges, name))
    np.testing.assert_array_equal(loaded.target_values, graph.target_values)
    assert loaded.nodes.label == graph.nodes.label
    for name in ("tokens", "prompt", "n_layers", "scores", "causal", "row_sum_max_error"):
        assert getattr(loaded, name) == getattr(graph, name)
    assert loaded.metadata["model"] == "tiny"
    assert loaded.metadata["versions"]["python"]


def test_saving_twice_gives_the_same_bytes_and_keeps_the_first_versions(
    graph: AttributionGraph, tmp_path: Path
) -> None:
    first, second = tmp_path / "1.graph", tmp_path / "2.graph"
    made = replace(graph, metadata={"versions": {"pellucid": "0.0.1"}})
    made.save(first)
    AttributionGraph.load(first).save(second)
    assert first.read_bytes() == second.read_bytes()


def test_figures_that_are_not_finite_are_stored_as_null(
    graph: AttributionGraph, tmp_path: Path
) -> None:
    causal = {"spearman_real": float("nan"), "frozen_max_error": np.float32(0.5), "rows": []}
    replace(graph, causal=causal).save(tmp_path / "a.graph")
    loaded = AttributionGraph.load(tmp_path / "a.graph").causal
    assert loaded == {"spearman_real": None, "frozen_max_error": 0.5, "rows": []}


def test_every_truncation_is_one_clear_error(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(GraphError, match=r"a\.graph"):
            AttributionGraph.load(saved)


def test_any_flipped_bit_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole), size=200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(GraphError, match=r"a\.graph"):
            AttributionGraph.load(saved)


def test_a_later_schema_asks_for_an_upgrade(graph: AttributionGraph, saved: Path) -> None:
    arrays, header = contents(saved)
    write_container(saved, arrays, header | {"schema_version": 99})
    with pytest.raises(GraphError, match=r"schema version 99.*upgrade pellucid"):
        AttributionGraph.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dictionaries"}, "holds 'dictionaries', not 'graph'"),
        ({"n_layers": "many"}, "n_layers"),
        ({"labels": 7}, "lacks a part|labels"),
        ({"labels": ["x"]}, "differ in length"),
        ({"scores": []}, "scores"),
        ({"causal": {"rows": [{"node": 10**9}]}}, "names node"),
        ({"tokens": [1, 2, 3, 4]}, "tokens must be"),
    ],
)
def test_a_header_with_a_right_checksum_is_still_validated(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    arrays, header = contents(saved)
    write_container(saved, arrays, header | change)
    with pytest.raises(GraphError, match=message):
        AttributionGraph.load(saved)


def test_a_missing_array_is_named(saved: Path) -> None:
    arrays, header = contents(saved)
    del arrays["edges.weight"]
    write_container(saved, arrays, header)
    with pytest.raises(GraphError, match=r"edges\.weight"):
        AttributionGraph.load(saved)


def test_edges_that_run_backwards_are_refused_in_a_file_too(saved: Path) -> None:
    arrays, header = contents(saved)
    arrays["edges.source"], arrays["edges.target"] = (
        np.sort(arrays["edges.target"]),
        np.arange(len(arrays["edges.source"]), dtype=np.int32),
    )
    write_container(saved, arrays, header)
    with pytest.raises(GraphError, match=r"a\.graph: "):
        AttributionGraph.load(saved)


@pytest.mark.parametrize(
    "text", [b"", b"not a graph", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}" * 20]
)
def test_other_files_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(text)
    with pytest.raises(GraphError, match="not a readable graph file"):
        AttributionGraph.load(path)


def test_safetensors_without_our_header_or_with_a_hostile_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, path)
    with pytest.raises(GraphError, match="no pellucid header"):
        AttributionGraph.load(path)
    for header in ("[]", "null", "{}", "{", "[" * 100_000):
        save_file({"w": np.zeros(3)}, path, metadata={"pellucid": header})
        with pytest.raises(GraphError, match="damaged header"):
            AttributionGraph.load(path)


def test_missing_files_and_unwritable_places_are_named(
    graph: AttributionGraph, tmp_path: Path
) -> None:
    with pytest.raises(GraphError, match="no graph file at"):
        AttributionGraph.load(tmp_path / "nowhere.graph")
    with pytest.raises(GraphError, match="no graph file at"):
        AttributionGraph.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        graph.save(tmp_path / "file" / "a.graph")


def test_a_failed_save_leaves_the_earlier_file(graph: AttributionGraph, saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        replace(graph, metadata={"object": object()}).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["a.graph"]
