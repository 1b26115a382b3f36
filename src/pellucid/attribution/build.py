"""Assembling finished rows into an `AttributionGraph`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.attribution.columns import SourceTable, source_nodes
from pellucid.attribution.explain import Explained
from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.rows import KeptRows, RowStore
from pellucid.attribution.select import Selection
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import (
    LOGIT,
    NODE_COLUMNS,
    Edges,
    NodeTable,
)

Part = tuple[KeptRows, Int[Tensor, " r"], Int[Tensor, " r"]]
"""A block, which of its rows a graph takes, and the node each of them belongs to."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a graph says of its prompt: the text as given and the texts of its tokens."""

    given: str | Sequence[int]
    texts: list[str]


class GraphBuilder:
    """Puts graphs together from the rows of one prompt.

    Args:
        linear: the affine map.
        store: its rows.
        prompt: what was traced.
    """

    def __init__(self, linear: LinearModel, store: RowStore, prompt: Prompt) -> None:
        self.linear, self.store, self.table, self.prompt = linear, store, store.table, prompt
        self.sources = source_nodes(linear, store.table)
        self.labels = _labels(store.table, prompt.texts)
        self.parts = _node_order(store.table)

    def build(
        self,
        explained: Explained,
        top: list[tuple[KeptRows, Int[Tensor, " R"]]],
        selection: Selection,
        *,
        position: int,
        metadata: dict[str, Any],
    ) -> AttributionGraph:
        """The graph of the chosen features, all errors and tokens up to a position, and constants.

        Args:
            explained: what is explained.
            top: its rows, each with the numbers of its targets.
            selection: the chosen features.
            position: the last position.
            metadata: what to record.
        """
        held = self.store.holding(selection.chosen)
        kept = self._kept_columns(selection.chosen, position, [b for b, _ in top + held])
        ordered = self.parts[kept[self.parts]]
        node_of_column = torch.full((self.table.size,), -1, dtype=torch.long)
        node_of_column[ordered] = torch.arange(len(ordered))
        parts: list[Part] = [
            (block, torch.arange(len(numbers)), numbers + len(ordered)) for block, numbers in top
        ]
        for block, mine in held:
            rows = mine.nonzero().squeeze(1)
            columns = self.table.feature_columns[block.features[rows]]
            parts.append((block, rows, node_of_column[columns]))
        tokens = self.prompt.texts[: position + 1]
        whole = isinstance(self.prompt.given, str) and len(tokens) == len(self.prompt.texts)
        return AttributionGraph(
            nodes=self._nodes(ordered.numpy(), explained),
            edges=_edges(parts, node_of_column, len(ordered) + len(explained.labels)),
            tokens=tokens,
            prompt=str(self.prompt.given) if whole else " ".join(tokens),
            n_layers=self.table.n_layers,
            target_values=_target_values(parts, len(ordered) + len(explained.labels)),
            row_sum_max_error=max(float(block.error[rows].max()) for block, rows, _ in parts),
            metadata=metadata,
        )

    def _kept_columns(
        self, chosen: Bool[Tensor, " F"], position: int, blocks: list[KeptRows]
    ) -> Bool[Tensor, " C"]:
        """Chosen features, errors that exist, tokens, and constants that are not all zero."""
        table = self.table
        kept = torch.zeros(table.size, dtype=torch.bool)
        kept[table.feature_columns[chosen]] = True
        for layer, local in enumerate(self.linear.local.layers):
            exists = (~local.anchored & local.error.any(dim=1)).cpu()
            exists[position + 1 :] = False
            kept[table.error_columns[layer][exists]] = True
        kept[table.token_start : table.token_start + position + 1] = True
        for block in blocks:
            used = block.weights[:, block.n_sources :].ne(0).any(dim=0)
            kept[block.columns[block.n_sources :][used]] = True
        return kept

    def _nodes(self, ordered: np.ndarray, explained: Explained) -> NodeTable:
        count = len(explained.labels)
        ends: dict[str, Any] = {
            "kind": LOGIT,
            "layer": self.table.n_layers,
            "position": explained.targets.position.cpu().numpy(),
            "index": explained.index,
            "activation": explained.targets.value.cpu().numpy(),
            "probability": explained.weights.numpy(),
        }
        columns = {
            name: np.concatenate(
                [self.sources[name][ordered], np.broadcast_to(ends[name], count).astype(dtype)]
            )
            for name, dtype in NODE_COLUMNS.items()
        }
        return NodeTable(label=self.labels[ordered].tolist() + explained.labels, **columns)


def _node_order(table: SourceTable) -> Int[Tensor, " C"]:
    """All columns in node order: features, errors, tokens, constants (each already sorted)."""
    errors = table.error_columns.flatten()
    rest = torch.arange(table.token_start, table.size)
    return torch.cat([table.feature_columns, errors, rest])


def _labels(table: SourceTable, texts: list[str]) -> np.ndarray:
    labels = np.full(table.size, "", dtype=object)
    labels[table.token_start : table.bias_start] = texts
    labels[table.bias_start :] = [
        "position embedding",
        "encoder and norm bias",
        *(f"biases of layer {number}" for number in range(table.n_layers)),
    ]
    return labels


def _edges(parts: list[Part], node_of_column: Int[Tensor, " C"], n_nodes: int) -> Edges:
    """All non-zero weights between nodes, sorted by target and source without a sort over edges."""
    counts = np.zeros(n_nodes, dtype=np.int64)
    pieces = []
    for block, rows, own in parts:
        nodes = node_of_column[block.columns]
        columns = torch.argsort(nodes)[int((nodes < 0).sum()) :]
        values = block.weights.index_select(0, rows).index_select(1, columns)
        present = values != 0
        sources = nodes[columns].int().expand(len(rows), -1).masked_select(present)
        count = present.sum(dim=1).numpy()
        counts[own.numpy()] = count
        weights = values.masked_select(present).float().numpy()
        pieces.append((own.numpy(), np.cumsum(count) - count, sources.numpy(), weights))
    starts = np.cumsum(counts) - counts
    source = np.empty(int(counts.sum()), dtype=np.int32)
    weight = np.empty(len(source), dtype=np.float32)
    for targets, begins, found, weights in pieces:
        for node, begin in zip(targets.tolist(), begins.tolist(), strict=True):
            n, start = counts[node], starts[node]
            source[start : start + n] = found[begin : begin + n]
            weight[start : start + n] = weights[begin : begin + n]
    target = np.repeat(np.arange(n_nodes, dtype=np.int32), counts)
    return Edges(target=target, source=source, weight=weight)


def _target_values(parts: list[Part], n_nodes: int) -> np.ndarray:
    values = np.full(n_nodes, np.nan, dtype=np.float32)
    for block, rows, nodes in parts:
        values[nodes.numpy()] = block.value[rows].numpy()
    return values
