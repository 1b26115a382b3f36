"""The attribution graph of one prompt: what each node is, and what it contributes to which."""

from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from pellucid.core.errors import GraphError
from pellucid.core.manifest import software_versions
from pellucid.graphs.container import read_container, write_container
from pellucid.graphs.tables import (
    EDGE_COLUMNS,
    ERROR,
    FEATURE,
    LOGIT,
    NODE_COLUMNS,
    Edges,
    NodeTable,
    as_array,
)

KIND = "graph"
SCHEMA_VERSION = 1
FIELD_TYPES: dict[str, Any] = {
    "tokens": list,
    "prompt": str,
    "n_layers": int,
    "metadata": dict,
    "scores": dict,
    "causal": dict | None,
    "row_sum_max_error": float | None,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttributionGraph:
    """A linear account of one prediction under frozen attention and norms.

    Change a field with `dataclasses.replace`.

    Attributes:
        nodes: the node table, N rows.
        edges: direct effects between them; a DAG by `NodeTable.rank`.
        tokens: the prompt's token texts, one a position.
        prompt: the prompt as given.
        n_layers: the model's number of layers.
        target_values: a target's pre-activation (a logit's value minus the mean logit), which its
            complete row sums to; NaN for nodes that are not targets.
        metadata: provenance (model, dictionaries, settings, versions), JSON-able.
        scores: named figures of the whole graph, such as replacement and completeness.
        causal: the causal check's record, None where it was not run.
        row_sum_max_error: the largest relative gap between a complete row's sum and its target
            value, measured when traced; None where unknown.

    Raises:
        GraphError: the parts do not fit each other.
    """

    nodes: NodeTable
    edges: Edges
    tokens: list[str]
    prompt: str
    n_layers: int
    target_values: Float32[np.ndarray, " N"]
    metadata: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    causal: dict[str, Any] | None = None
    row_sum_max_error: float | None = None

    def __post_init__(self) -> None:
        values = as_array(self.target_values, np.float32, "target_values")
        object.__setattr__(self, "target_values", values)
        if len(values) != len(self.nodes):
            raise GraphError(
                f"graph has {len(values)} target values for {len(self.nodes)} nodes; give one a "
                "node (NaN where it is not a target)"
            )
        if np.isinf(values).any():
            raise GraphError(f"graph node {int(np.argmax(np.isinf(values)))} has an infinite value")
        self._check_parts()
        self._check_nodes()
        self._check_edges()

    def row_sums(self) -> Float64[np.ndarray, " N"]:
        """The sum of every node's incoming edge weights (0 without any)."""
        return np.bincount(
            self.edges.target, self.edges.weight.astype(np.float64), minlength=len(self.nodes)
        )

    def noting(self, **records: Any) -> "AttributionGraph":
        """The same graph with other `metadata`, `scores` or `causal`, its tables not copied."""
        assert set(records) <= {"metadata", "scores", "causal"}, sorted(records)
        noted = copy(self)
        for name, record in records.items():
            object.__setattr__(noted, name, record)
        noted._check_parts()
        return noted

    def subgraph(
        self,
        keep_nodes: Bool[np.ndarray, " N"],
        keep_edges: Bool[np.ndarray, " E"] | None = None,
    ) -> "AttributionGraph":
        """The graph of some nodes, and of those edges between them that are kept (default all).

        Scores and the causal record stay those of the whole graph; a causal row whose node is
        left out names node None.
        """
        edges = self.edges
        inside = keep_nodes[edges.target] & keep_nodes[edges.source]
        kept = edges.select(inside if keep_edges is None else inside & keep_edges)
        number = np.cumsum(keep_nodes) - 1
        return AttributionGraph(
            nodes=self.nodes.select(keep_nodes),
            edges=Edges(target=number[kept.target], source=number[kept.source], weight=kept.weight),
            tokens=self.tokens,
            prompt=self.prompt,
            n_layers=self.n_layers,
            target_values=self.target_values[keep_nodes],
            metadata=self.metadata,
            scores=self.scores,
            causal=_renumber_causal(self.causal, keep_nodes, number),
            row_sum_max_error=self.row_sum_max_error,
        )

    def save(self, path: str | Path) -> None:
        """Write the graph to one file (safetensors with a JSON header), atomically.

        Raises:
            StorageError: the disk refuses.
        """
        columns = {f"nodes.{name}": getattr(self.nodes, name) for name in NODE_COLUMNS}
        columns |= {f"edges.{name}": getattr(self.edges, name) for name in EDGE_COLUMNS}
        header = {name: getattr(self, name) for name in FIELD_TYPES}
        header |= {"kind": KIND, "schema_version": SCHEMA_VERSION, "labels": self.nodes.label}
        header["metadata"] = {"versions": software_versions()} | self.metadata
        write_container(Path(path), columns | {"target_values": self.target_values}, header)

    @classmethod
    def load(cls, path: str | Path) -> "AttributionGraph":
        """Read a graph file and check it.

        Raises:
            GraphError: missing, truncated, altered, of a later schema, or not a valid graph.
        """
        arrays, header = read_container(Path(path), kind=KIND, schema_version=SCHEMA_VERSION)
        try:
            nodes = {name: arrays[f"nodes.{name}"] for name in NODE_COLUMNS}
            edges = {name: arrays[f"edges.{name}"] for name in EDGE_COLUMNS}
            return cls(
                nodes=NodeTable(label=header["labels"], **nodes),
                edges=Edges(**edges),
                target_values=arrays["target_values"],
                **{name: header[name] for name in FIELD_TYPES},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GraphError(f"{path} lacks a part of a graph ({error}); trace again") from error
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from error

    def _check_parts(self) -> None:
        for name, kind in FIELD_TYPES.items():
            if not isinstance(getattr(self, name), kind):
                raise GraphError(f"graph field {name!r} is {getattr(self, name)!r:.40}, not {kind}")
        if not self.tokens or not all(isinstance(token, str) for token in self.tokens):
            raise GraphError("graph tokens must be a list of texts, one a position of the prompt")
        rows = (self.causal or {}).get("rows", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise GraphError("the causal check's rows are not a list of records; trace again")
        for row in rows:
            node = row.get("node")
            if node is not None and not (isinstance(node, int) and 0 <= node < len(self.nodes)):
                raise GraphError(
                    f"the causal check names node {node!r:.20}, of {len(self.nodes)} nodes"
                )

    def _check_nodes(self) -> None:
        nodes = self.nodes
        inner = (nodes.layer >= 0) & (nodes.layer < self.n_layers)
        anywhere = (nodes.layer >= -1) & (nodes.layer <= self.n_layers)
        fits = np.where(nodes.is_kind(FEATURE, ERROR), inner, anywhere)
        fits &= (nodes.kind != LOGIT) | (nodes.layer == self.n_layers)
        fits &= (nodes.position >= -1) & (nodes.position < len(self.tokens))
        if not fits.all():
            bad = int(np.argmin(fits))
            raise GraphError(
                f"graph node {bad} lies at layer {nodes.layer[bad]}, position "
                f"{nodes.position[bad]}, outside {self.n_layers} layers and {len(self.tokens)} "
                "tokens"
            )

    def _check_edges(self) -> None:
        edges, size = self.edges, len(self.nodes)
        for name, ids in (("target", edges.target), ("source", edges.source)):
            if len(ids) and not (ids.min() >= 0 and ids.max() < size):
                raise GraphError(f"a graph edge names {name} {ids.max()}, of {size} nodes")
        kind = self.nodes.kind
        # One number a node: a source must have less than its target, and nothing leads from a
        # logit or to anything but features and logits.
        rank = self.nodes.rank().astype(np.int32)
        highest = rank.max(initial=0) + 1
        as_source = np.where(kind == LOGIT, highest, rank)
        as_target = np.where((kind == FEATURE) | (kind == LOGIT), rank, rank.min(initial=0))
        forward = as_source[edges.source] < as_target[edges.target]
        if not forward.all():
            bad = int(np.argmin(forward))
            raise GraphError(
                f"graph edge {bad} leads from node {edges.source[bad]} to node "
                f"{edges.target[bad]}, which is not later in the model; edges lead from earlier "
                "layers to features and logits of later ones"
            )


def _renumber_causal(
    causal: dict[str, Any] | None, keep: np.ndarray, number: np.ndarray
) -> dict[str, Any] | None:
    if causal is None:
        return None
    rows = []
    for row in causal.get("rows", []):
        node = row.get("node")
        kept = node is not None and bool(keep[node])
        rows.append(row | {"node": int(number[node]) if kept else None})
    return causal | {"rows": rows}
