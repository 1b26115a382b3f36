"""The part of a circuit that many prompts have in common.

Suffixes: G graphs, R rows (nodes or edges).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import feature_rule, node_keys
from pellucid.graphs.overlap import Layout, layout
from pellucid.graphs.resampling import COVERAGE, check_draws
from pellucid.graphs.tables import BIAS, LOGIT, NODE_KINDS

Roles = Literal["end", "start", "any"] | Sequence[Sequence[str | None]]
NO_ROLE = int(np.iinfo(np.int64).min)
OUTPUT = NO_ROLE + 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recurrence:
    """How often something is there and how large it is where it is, R rows, most frequent first.

    Attributes:
        frequency: share of graphs whose pruned graph has it.
        frequency_interval: 95% percentile bootstrap interval over graphs.
        mean: a node's influence as a share of the logits' probability, or an edge's weight,
            averaged over the graphs that have it.
        mean_interval: likewise; NaN where no draw has it.
    """

    frequency: Float64[np.ndarray, " R"]
    frequency_interval: Float64[np.ndarray, "R 2"]
    mean: Float64[np.ndarray, " R"]
    mean_interval: Float64[np.ndarray, "R 2"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecurringCircuit:
    """Nodes and edges that at least a given share of pruned graphs have.

    Attributes:
        graphs: how many graphs there are.
        kind: name of each node's kind.
        layer: each node's layer, as in `NodeTable` (0 for logits).
        role: each node's position role: a label, or a number counted as was asked for; "output"
            for logits.
        index: feature number; a logit's rank by the tracer's order; 0 for tokens, -1 for errors.
        nodes: how often each node is there.
        target: each edge's target, a row of the node columns; -1 where its node is too rare.
        source: each edge's source, likewise.
        edges: how often each edge is there.
        null_nodes: how many nodes are as frequent, on average, when the features of every graph
            are shuffled within their layers; None where that was not measured.
        null_edges: the same of edges.
    """

    graphs: int
    kind: list[str]
    layer: Int64[np.ndarray, " n"]
    role: list[str]
    index: Int64[np.ndarray, " n"]
    nodes: Recurrence
    target: Int64[np.ndarray, " e"]
    source: Int64[np.ndarray, " e"]
    edges: Recurrence
    null_nodes: float | None
    null_edges: float | None

    def to_json(self) -> dict[str, Any]:
        """The circuit as a JSON-able record."""
        nodes = [
            {
                "kind": self.kind[row],
                "layer": int(self.layer[row]),
                "role": self.role[row],
                "index": int(self.index[row]),
            }
            | _record(self.nodes, row)
            for row in range(len(self.kind))
        ]
        edges = [
            {"target": int(self.target[row]), "source": int(self.source[row])}
            | _record(self.edges, row)
            for row in range(len(self.target))
        ]
        null = {"nodes": self.null_nodes, "edges": self.null_edges}
        return {"graphs": self.graphs, "nodes": nodes, "edges": edges, "null": null}


def _record(table: Recurrence, row: int) -> dict[str, Any]:
    figures = {
        "frequency": table.frequency[row],
        "frequency_low": table.frequency_interval[row, 0],
        "frequency_high": table.frequency_interval[row, 1],
        "mean": table.mean[row],
        "mean_low": table.mean_interval[row, 0],
        "mean_high": table.mean_interval[row, 1],
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()}


def recurring_circuit(
    graphs: Sequence[AttributionGraph],
    *,
    share: float = 0.5,
    roles: Roles = "end",
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
    bootstraps: int = 1000,
    nulls: int = 10,
    seed: int = 0,
) -> RecurringCircuit:
    """Find what the pruned graphs of many prompts have in common.

    Nodes are the same when kind, layer, feature number and position role agree; tokens are known
    by role alone, logits by rank (0 is the likeliest of each prompt). Intervals draw graphs with
    replacement and so cover the choice of prompts, not of thresholds or dictionaries; a thing
    that all graphs have gets the interval [1, 1], which says no more than their number does.

    Args:
        graphs: two or more unpruned graphs of one dictionary.
        share: the smallest share of graphs that must have a node or an edge, above 0.
        roles: "end" numbers positions from the end (-1 is the last), "start" from the start, "any"
            ignores them; or for each graph a label a position (None for one without a role, which
            is left out). Nodes of one graph that fall together count once, their values added.
        node_threshold: as in `prune`.
        edge_threshold: as in `prune`.
        bootstraps: how many draws; with 0 intervals are NaN.
        nulls: how many shuffles for the chance counts; 0 for none.
        seed: of the draws and shuffles.

    Raises:
        GraphError: fewer than two graphs, different dictionaries, labels that do not fit the
            prompts, or a share or threshold out of range.
    """
    if len(graphs) < 2:
        raise GraphError(f"a common circuit needs at least 2 graphs; there is {len(graphs)}")
    if not 0 < share <= 1:
        raise GraphError(f"share is {share}; give a share above 0 and up to 1")
    check_draws(bootstraps=bootstraps, nulls=nulls)
    for graph in graphs[1:]:
        feature_rule(graphs[0], graph, None)
    places, names = _places(graphs, roles)
    layouts = [
        layout(
            graph,
            _role_keys(graph, place),
            node_threshold=node_threshold,
            edge_threshold=edge_threshold,
        )
        for graph, place in zip(graphs, places, strict=True)
    ]
    rng = np.random.default_rng(seed)
    least = int(np.ceil(share * len(graphs) - 1e-9))
    tables = _tables(layouts, least)
    draws = rng.multinomial(len(graphs), np.full(len(graphs), 1 / len(graphs)), size=bootstraps)
    node_order, nodes = _recurrence(tables.nodes, draws.astype(np.float64))
    edge_order, edges = _recurrence(tables.edges, draws.astype(np.float64))
    chance = [_tables([part.permuted(rng) for part in layouts], least) for _ in range(nulls)]
    keys = tables.keys[tables.nodes.row[node_order]]
    row_of_key = np.full(len(tables.keys), -1)
    row_of_key[tables.nodes.row[node_order]] = np.arange(len(node_order))
    ends = row_of_key[np.stack(np.divmod(tables.edges.row[edge_order], len(tables.keys)))]
    return RecurringCircuit(
        graphs=len(graphs),
        kind=[NODE_KINDS[kind] for kind in keys[:, 0]],
        layer=keys[:, 1],
        role=[(names | {OUTPUT: "output"}).get(int(place), str(place)) for place in keys[:, 2]],
        index=keys[:, 3],
        nodes=nodes,
        target=ends[0],
        source=ends[1],
        edges=edges,
        null_nodes=float(np.mean([len(t.nodes.row) for t in chance])) if chance else None,
        null_edges=float(np.mean([len(t.edges.row) for t in chance])) if chance else None,
    )


def _places(
    graphs: Sequence[AttributionGraph], roles: Roles
) -> tuple[list[np.ndarray], dict[int, str]]:
    """For every graph the role of each position as a number, and the roles' names."""
    lengths = [len(graph.tokens) for graph in graphs]
    if roles == "end":
        return [np.arange(-length, 0) for length in lengths], {}
    if roles == "start":
        return [np.arange(length) for length in lengths], {}
    if roles == "any":
        return [np.zeros(length, dtype=np.int64) for length in lengths], {0: "any"}
    if isinstance(roles, str):
        raise GraphError(f"roles are {roles!r}; give 'end', 'start', 'any' or labels")
    if [len(labels) for labels in roles] != lengths:
        raise GraphError(
            f"roles have {[len(labels) for labels in roles]} labels for prompts of {lengths} "
            "tokens; give every graph one label a position, None where it has no role"
        )
    distinct = sorted({label for labels in roles for label in labels if label is not None})
    number = {label: row for row, label in enumerate(distinct)}
    places = [
        np.array([NO_ROLE if label is None else number[label] for label in labels])
        for labels in roles
    ]
    return places, dict(enumerate(distinct))


def _role_keys(graph: AttributionGraph, place: np.ndarray) -> np.ndarray:
    nodes = graph.nodes
    keys = node_keys(graph)
    inside = nodes.position >= 0
    keys[inside, 2] = place[nodes.position[inside]]
    logits = np.flatnonzero(nodes.kind == LOGIT)
    keys[logits, 1:] = 0
    keys[logits, 2], keys[logits, 3] = OUTPUT, np.arange(len(logits))
    return keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """Rows that enough graphs have: what they are, and for every graph presence and value."""

    row: np.ndarray
    present: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tables:
    keys: np.ndarray
    nodes: _Table
    edges: _Table


def _tables(layouts: Sequence[Layout], least: int) -> _Tables:
    keys, inverse = np.unique(
        np.concatenate([part.keys for part in layouts]), axis=0, return_inverse=True
    )
    ids = np.split(inverse.reshape(-1), np.cumsum([len(part.keys) for part in layouts])[:-1])
    size = len(keys)
    usable = (keys[:, 0] != BIAS) & (keys[:, 2] != NO_ROLE)
    nodes, edges = [], []
    for part, own in zip(layouts, ids, strict=True):
        kept = part.kept_nodes & usable[own]
        nodes.append((own[kept], part.influence[kept]))
        target, source = own[part.target], own[part.source]
        kept = part.kept_edges & usable[target] & usable[source]
        edges.append((target[kept] * size + source[kept], part.weight[kept]))
    return _Tables(keys=keys, nodes=_frequent(nodes, least), edges=_frequent(edges, least))


def _frequent(columns: list[tuple[np.ndarray, np.ndarray]], least: int) -> _Table:
    """The rows that at least `least` graphs have."""
    rows, counts = np.unique(
        np.concatenate([np.unique(row) for row, _ in columns]), return_counts=True
    )
    rows = rows[counts >= least]
    present, value = np.zeros((2, len(columns), len(rows)))
    for graph, (row, values) in enumerate(columns):
        place = np.searchsorted(rows, row)
        known = np.isin(row, rows)
        np.add.at(value[graph], place[known], values[known])
        present[graph, place[known]] = 1
    return _Table(row=rows, present=present, value=value)


def _recurrence(table: _Table, draws: Float64[np.ndarray, "B G"]) -> tuple[np.ndarray, Recurrence]:
    """The rows in order, most frequent first (then largest), with their figures."""
    graphs = len(table.present)
    count = table.present.sum(axis=0)
    mean = table.value.sum(axis=0) / np.maximum(count, 1)
    order = np.lexsort((-np.abs(mean), -count))
    present, value = table.present[:, order], table.value[:, order]
    frequencies, means = np.full((2, len(order), 2), np.nan)
    for start in range(0, len(order) if len(draws) else 0, 4096):
        part = slice(start, start + 4096)
        times = draws @ present[:, part]
        frequencies[part] = np.quantile(times / graphs, COVERAGE, axis=0).T
        drawn = np.where(times > 0, draws @ value[:, part] / np.maximum(times, 1), np.nan)
        seen = (times > 0).any(axis=0)
        means[part][seen] = np.nanquantile(drawn[:, seen], COVERAGE, axis=0).T
    return order, Recurrence(
        frequency=count[order] / graphs,
        frequency_interval=frequencies,
        mean=mean[order],
        mean_interval=means,
    )
