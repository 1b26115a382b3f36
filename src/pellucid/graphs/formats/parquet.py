"""Many graphs in one Parquet dataset: three tables that any data tool can query.

`graphs.parquet` has a row a graph, `nodes.parquet` and `edges.parquet` a row group a graph, in the
same order; all three name the graph in the column `graph`. `manifest.json` holds checksums. A
folder of such folders (one a worker) is read as one dataset.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pellucid.core.errors import GraphError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import MANIFEST_NAME, Manifest, read_manifest
from pellucid.graphs.container import json_value
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.scores import edge_influence, influence
from pellucid.graphs.tables import EDGE_COLUMNS, NODE_COLUMNS, NODE_KINDS, Edges, NodeTable

KIND = "graphs"
VERSION = 1
FILES = ("graphs.parquet", "nodes.parquet", "edges.parquet")
REST = ("metadata", "scores", "causal", "row_sum_max_error")
"""Fields that are kept as JSON text."""
BROKEN = (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError)

GRAPHS = pa.schema(
    [
        ("graph", pa.string()),
        ("prompt", pa.string()),
        ("tokens", pa.list_(pa.string())),
        ("n_layers", pa.int32()),
        ("nodes", pa.int64()),
        ("edges", pa.int64()),
        ("replacement", pa.float64()),
        ("completeness", pa.float64()),
        ("rest", pa.string()),
    ]
)
NODES = pa.schema(
    [("graph", pa.string()), ("name", pa.string()), ("kind", pa.string())]
    + [(name, pa.from_numpy_dtype(kind)) for name, kind in NODE_COLUMNS.items() if name != "kind"]
    + [("label", pa.string()), ("target_value", pa.float32()), ("influence", pa.float64())]
)
EDGES = pa.schema(
    [("graph", pa.string())]
    + [(name, pa.from_numpy_dtype(kind)) for name, kind in EDGE_COLUMNS.items()]
    + [("influence", pa.float64())]
)


def write_parquet(
    graphs: Mapping[str, AttributionGraph] | Iterable[tuple[str, AttributionGraph]],
    folder: str | Path,
) -> int:
    """Write graphs to a folder, atomically, one after the other (they may come from a generator).

    Edges name their ends by row number within their own graph, as `Edges` does.

    Args:
        graphs: graph ids and graphs.
        folder: the folder; what is there is replaced when all graphs are written.

    Returns:
        How many graphs were written.

    Raises:
        GraphError: an id that is empty, not a text or used twice.
        StorageError: the disk refuses.
    """
    items = graphs.items() if isinstance(graphs, Mapping) else graphs
    seen: set[str] = set()
    with atomic_directory(Path(folder)) as temporary:
        with ExitStack() as stack:
            writers = [
                stack.enter_context(pq.ParquetWriter(temporary / name, schema))
                for name, schema in zip(FILES, (GRAPHS, NODES, EDGES), strict=True)
            ]
            for name, graph in items:
                if not isinstance(name, str) or not name or name in seen:
                    raise GraphError(
                        f"graph id is {name!r:.60}; give every graph a text of its own"
                    )
                seen.add(name)
                tables = _graph_table(name, graph), _node_table(name, graph)
                for writer, table in zip(writers, (*tables, _edge_table(name, graph)), strict=True):
                    writer.write_table(table, row_group_size=max(1, len(table)))
        manifest = Manifest(kind=KIND, config={"version": VERSION, "graphs": len(seen)})
        manifest.write(temporary, list(FILES))
    return len(seen)


def _graph_table(name: str, graph: AttributionGraph) -> pa.Table:
    row = {
        "graph": name,
        "prompt": graph.prompt,
        "tokens": graph.tokens,
        "n_layers": graph.n_layers,
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "replacement": graph.scores.get("replacement"),
        "completeness": graph.scores.get("completeness"),
        "rest": json.dumps(json_value({key: getattr(graph, key) for key in REST})),
    }
    return pa.Table.from_pylist([row], schema=GRAPHS)


def _node_table(name: str, graph: AttributionGraph) -> pa.Table:
    nodes = graph.nodes
    columns: dict[str, Any] = {key: getattr(nodes, key) for key in NODE_COLUMNS}
    columns["kind"] = np.array(NODE_KINDS)[nodes.kind].tolist()
    values = graph.target_values
    columns |= {
        "graph": [name] * len(nodes),
        "name": node_names(graph),
        "label": nodes.label,
        "target_value": pa.array(values, mask=np.isnan(values)),
        "influence": influence(graph),
    }
    return pa.table({key: columns[key] for key in NODES.names}, schema=NODES)


def _edge_table(name: str, graph: AttributionGraph) -> pa.Table:
    columns: dict[str, Any] = {key: getattr(graph.edges, key) for key in EDGE_COLUMNS}
    columns |= {"graph": [name] * len(graph.edges), "influence": edge_influence(graph)}
    return pa.table({key: columns[key] for key in EDGES.names}, schema=EDGES)


def read_parquet(
    folder: str | Path, ids: Iterable[str] | None = None, *, verify: bool = True
) -> Iterator[tuple[str, AttributionGraph]]:
    """Read graphs one by one, in the order in which they were written.

    Args:
        folder: a folder of `write_parquet`, or a folder of such folders.
        ids: read these graphs alone.
        verify: compare checksums first, which reads every file once.

    Raises:
        CheckpointError: missing, truncated or altered, or another kind of folder.
        GraphError: a later version, an id that is not there, or not valid graphs.
    """
    folder = Path(folder)
    parts = [folder]
    if folder.is_dir() and not (folder / MANIFEST_NAME).exists():
        parts = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}")) or [folder]
    wanted = None if ids is None else set(ids)
    found: set[str] = set()
    for part in parts:
        for name, graph in _read_part(part, wanted, verify=verify):
            if name in found:
                raise GraphError(f"{folder} holds two graphs called {name!r:.60}; rename one")
            found.add(name)
            yield name, graph
    missing = sorted((wanted or set()) - found)
    if missing:
        raise GraphError(f"{folder} has no graph {missing[0]!r:.60}; its column 'graph' lists them")


def _read_part(
    folder: Path, wanted: set[str] | None, *, verify: bool
) -> Iterator[tuple[str, AttributionGraph]]:
    manifest = read_manifest(folder, kind=KIND, verify=verify)
    version = manifest.config.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise GraphError(
            f"{folder} has version {str(version)[:20]} of the graph tables, this pellucid reads up "
            f"to {VERSION}; upgrade pellucid"
        )
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(pq.ParquetFile(folder / name)) for name in FILES]
            rows = files[0].read().to_pylist()
            for number, row in enumerate(rows):
                if wanted is None or row["graph"] in wanted:
                    tables = (file.read_row_group(number) for file in files[1:])
                    yield row["graph"], _graph(row, *tables)
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise GraphError(f"{folder} does not hold graph tables ({reason}); restore it") from error


def _graph(row: dict[str, Any], nodes: pa.Table, edges: pa.Table) -> AttributionGraph:
    number = {name: kind for kind, name in enumerate(NODE_KINDS)}
    for table, count in ((nodes, row["nodes"]), (edges, row["edges"])):
        if len(table) != count or set(table["graph"].to_pylist()) - {row["graph"]}:
            raise ValueError(f"the tables disagree about graph {row['graph']!r:.60}")
    columns: dict[str, Any] = {key: nodes[key].to_numpy() for key in NODE_COLUMNS if key != "kind"}
    return AttributionGraph(
        nodes=NodeTable(
            kind=np.array([number[kind] for kind in nodes["kind"].to_pylist()], dtype=np.uint8),
            label=nodes["label"].to_pylist(),
            **columns,
        ),
        edges=Edges(**{key: edges[key].to_numpy() for key in EDGE_COLUMNS}),
        tokens=row["tokens"],
        prompt=row["prompt"],
        n_layers=row["n_layers"],
        target_values=nodes["target_value"].to_numpy(),
        **{key: value for key, value in json.loads(row["rest"]).items() if key in REST},
    )
