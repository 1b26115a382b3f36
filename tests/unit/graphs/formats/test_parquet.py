import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pellucid.core.errors import CheckpointError, GraphError
from pellucid.core.manifest import Manifest
from pellucid.graphs.formats.parquet import FILES, read_parquet, write_parquet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence, scores
from pellucid.graphs.tables import FEATURE
from support.graph_files import assert_same, full_graph
from support.graphs import causal_record, random_graph


@pytest.fixture
def graphs() -> dict[str, AttributionGraph]:
    return {f"prompt {seed}": full_graph(seed) for seed in range(3)}


def test_graphs_come_back_equal_and_in_order(
    graphs: dict[str, AttributionGraph], tmp_path: Path
) -> None:
    assert write_parquet(iter(graphs.items()), tmp_path / "set") == 3
    back = list(read_parquet(tmp_path / "set"))
    assert [name for name, _ in back] == list(graphs)
    for name, graph in back:
        assert_same(graph, graphs[name])
        assert graph.metadata == graphs[name].metadata


def test_chosen_graphs_alone_are_read(graphs: dict[str, AttributionGraph], tmp_path: Path) -> None:
    write_parquet(graphs, tmp_path / "set")
    back = dict(read_parquet(tmp_path / "set", ["prompt 2"]))
    assert list(back) == ["prompt 2"]
    assert_same(back["prompt 2"], graphs["prompt 2"])
    with pytest.raises(GraphError, match="has no graph 'prompt 9'"):
        list(read_parquet(tmp_path / "set", ["prompt 9", "prompt 2"]))


def test_folders_of_several_workers_are_one_dataset(
    graphs: dict[str, AttributionGraph], tmp_path: Path
) -> None:
    for rank, (name, graph) in enumerate(graphs.items()):
        write_parquet({name: graph}, tmp_path / "set" / f"rank-{rank}")
    assert [name for name, _ in read_parquet(tmp_path / "set")] == list(graphs)
    write_parquet({"prompt 0": graphs["prompt 0"]}, tmp_path / "set" / "rank-3")
    with pytest.raises(GraphError, match="two graphs called 'prompt 0'"):
        list(read_parquet(tmp_path / "set"))


def test_tables_answer_questions_by_themselves(
    graphs: dict[str, AttributionGraph], tmp_path: Path
) -> None:
    graphs = {n: replace(g, scores=scores(g)._asdict()) for n, g in graphs.items()}
    write_parquet(graphs, tmp_path / "set")
    nodes = pq.read_table(tmp_path / "set" / "nodes.parquet").to_pandas()
    best = nodes[nodes.kind == "feature"].groupby("graph").influence.max()
    for name, graph in graphs.items():
        expected = influence(graph)[graph.nodes.kind == FEATURE].max()
        assert best[name] == pytest.approx(expected)
    edges = pq.read_table(tmp_path / "set" / "edges.parquet").to_pandas()
    assert edges.groupby("graph").size().to_dict() == {n: len(g.edges) for n, g in graphs.items()}
    table = pq.read_table(tmp_path / "set" / "graphs.parquet")
    assert table["replacement"].to_pylist() == [g.scores["replacement"] for g in graphs.values()]
    assert nodes.target_value.isna().sum() == sum(
        np.isnan(graph.target_values).sum() for graph in graphs.values()
    )


def test_a_failure_on_the_way_leaves_the_earlier_set(
    graphs: dict[str, AttributionGraph], tmp_path: Path
) -> None:
    write_parquet(graphs, tmp_path / "set")

    def failing() -> Any:
        yield "a", graphs["prompt 0"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_parquet(failing(), tmp_path / "set")
    assert len(list(read_parquet(tmp_path / "set"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["", 7, None])
def test_ids_must_be_texts(name: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=f"graph id is {name!r}"):
        write_parquet([(name, random_graph(0))], tmp_path / "set")


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="graph id is 'a'"):
        write_parquet([("a", random_graph(0)), ("a", random_graph(1))], tmp_path / "set")


def damaged(folder: Path, change: Callable[[Path], Any]) -> None:
    """Change the files and write checksums that fit."""
    change(folder)
    record = json.loads((folder / "manifest.json").read_text())
    Manifest(kind="graphs", config=record["config"]).write(folder, list(FILES))


def swap(folder: Path) -> None:
    """The tables of another set of equally many graphs."""
    write_parquet({str(seed): random_graph(seed + 9) for seed in range(3)}, folder / "other")
    (folder / "other" / "nodes.parquet").rename(folder / "nodes.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "nodes.parquet").write_bytes(b"PAR1nonsense"), "does not hold graph table"),
        (lambda f: (f / "edges.parquet").write_bytes(b""), "does not hold graph tables"),
        (swap, "disagree about graph"),
        (
            lambda f: pq.write_table(
                pq.read_table(f / "graphs.parquet").drop_columns(["rest"]), f / "graphs.parquet"
            ),
            "does not hold graph tables",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    change: Callable[[Path], Any],
    message: str,
    graphs: dict[str, AttributionGraph],
    tmp_path: Path,
) -> None:
    write_parquet(graphs, tmp_path / "set")
    damaged(tmp_path / "set", change)
    with pytest.raises(GraphError, match=message):
        list(read_parquet(tmp_path / "set"))


def test_damage_a_later_version_and_other_folders_are_refused(
    graphs: dict[str, AttributionGraph], tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    write_parquet(graphs, folder)
    whole = (folder / "nodes.parquet").read_bytes()
    (folder / "nodes.parquet").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        list(read_parquet(folder))
    (folder / "nodes.parquet").write_bytes(whole)
    Manifest(kind="graphs", config={"version": 2}).write(folder, list(FILES))
    with pytest.raises(GraphError, match=r"version 2.*upgrade pellucid"):
        list(read_parquet(folder))
    Manifest(kind="dictionaries").write(folder, list(FILES))
    with pytest.raises(CheckpointError, match="holds 'dictionaries'"):
        list(read_parquet(folder))
    with pytest.raises(CheckpointError, match="has no manifest"):
        list(read_parquet(tmp_path / "nowhere"))


def test_an_empty_set_and_a_causal_check(tmp_path: Path) -> None:
    assert write_parquet({}, tmp_path / "none") == 0
    assert list(read_parquet(tmp_path / "none")) == []
    graph = random_graph(0)
    graph = replace(graph, causal=causal_record(graph) | {"spearman_real": float("nan")})
    write_parquet({"a": graph}, tmp_path / "one")
    ((_, back),) = read_parquet(tmp_path / "one")
    assert back.causal["spearman_real"] is None
