"""Assembling finished rows into an `AttributionGraph`."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.select import Rows, Selection
from pellucid.attribution.sweep import SourceTable
from pellucid.attribution.targets import LogitTargets
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN, Edges, NodeTable


def build_graph(
    linear: LinearModel,
    table: SourceTable,
    logits: LogitTargets,
    selection: Selection,
    *,
    prompt: str | Sequence[int],
) -> AttributionGraph:
    """The graph of the kept features, all errors, tokens and constants, and the logits."""
    run = linear.local.run
    rows = selection.rows
    kept = _kept_columns(table, rows, linear)
    columns = kept.nonzero().squeeze(1)
    n_sources = len(columns)
    node_of_column = torch.full((table.size,), -1, dtype=torch.long)
    ordered = _node_order(table, columns)
    node_of_column[ordered] = torch.arange(n_sources)
    selected = torch.tensor(rows.selected, dtype=torch.long)
    node_of_target = torch.cat(
        [
            torch.arange(n_sources, n_sources + rows.n_logits),
            node_of_column[table.feature_columns[selected]],
        ]
    )
    token_texts = run.model.token_texts(run.ids.tolist())
    return AttributionGraph(
        nodes=_nodes(linear, table, logits, ordered),
        edges=_edges(rows, node_of_column, node_of_target),
        tokens=token_texts,
        prompt=prompt if isinstance(prompt, str) else " ".join(token_texts),
        n_layers=table.n_layers,
        target_values=_target_values(rows, node_of_target, n_sources),
        row_sum_max_error=row_sum_error(rows),
        metadata={
            "model": run.model.name,
            "model_fingerprint": run.model.fingerprint(),
            "dictionaries": linear.local.dictionaries.name,
            "token_ids": run.ids.tolist(),
            "active_features": linear.local.n_features,
            "selected_features": len(rows.selected),
            "unexplored_influence": selection.unexplored,
        },
    )


def row_sum_error(rows: Rows) -> float:
    """The largest relative difference between a row's sum and its target's pre-activation."""
    worst = 0.0
    for offset, block in rows.blocks:
        value = rows.targets.value[block.rows + offset].double()
        total = block.weights.double().sum(dim=1)
        worst = max(worst, float(((total - value).abs() / value.abs().clamp_min(1e-6)).max()))
    return worst


def _kept_columns(table: SourceTable, rows: Rows, linear: LinearModel) -> Bool[Tensor, " C"]:
    """Selected features, errors that exist, tokens, and constants that are not zero throughout."""
    kept = torch.zeros(table.size, dtype=torch.bool)
    kept[table.feature_columns[torch.tensor(rows.selected, dtype=torch.long)]] = True
    for layer, local in enumerate(linear.local.layers):
        kept[table.error_columns[layer][~local.anchored]] = True
    kept[table.token_start : table.bias_start] = True
    for _, block in rows.blocks:
        used = block.weights[:, block.columns >= table.bias_start].ne(0).any(dim=0)
        kept[block.columns[block.columns >= table.bias_start][used]] = True
    return kept


def _node_order(table: SourceTable, columns: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Columns in node order: features, errors, tokens, constants (each already sorted)."""
    is_error = torch.zeros(table.size, dtype=torch.bool)
    is_error[table.error_columns.flatten()] = True
    body = columns < table.token_start
    errors = is_error[columns]
    return torch.cat([columns[body & ~errors], columns[errors], columns[~body]])


def _nodes(
    linear: LinearModel, table: SourceTable, logits: LogitTargets, ordered: Int[Tensor, " n"]
) -> NodeTable:
    run = linear.local.run
    n = table.size
    kind = np.full(n, BIAS, dtype=np.uint8)
    layer, position = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    index, activation = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32)
    features = table.feature_columns.numpy()
    kind[features] = FEATURE
    layer[features] = table.feature_layers.numpy()
    position[features] = np.concatenate([x.positions.numpy() for x in linear.local.layers])
    index[features] = np.concatenate([x.features.numpy() for x in linear.local.layers])
    activation[features] = np.concatenate([x.activations.numpy() for x in linear.local.layers])
    errors = table.error_columns.numpy()
    kind[errors] = ERROR
    layer[errors] = np.arange(table.n_layers)[:, None]
    position[errors] = np.arange(table.n_positions)
    tokens = slice(table.token_start, table.bias_start)
    kind[tokens] = TOKEN
    position[tokens] = np.arange(table.n_positions)
    index[tokens] = run.ids.numpy()
    layer[table.bias_start + 2 :] = np.arange(table.n_layers)
    labels = np.full(n, "", dtype=object)
    labels[tokens] = run.model.token_texts(run.ids.tolist())
    labels[table.bias_start :] = [
        "position embedding",
        "encoder and norm bias",
        *(f"biases of layer {number}" for number in range(table.n_layers)),
    ]
    order = ordered.numpy()
    count = len(logits.tokens)
    token_ids = logits.tokens.numpy().astype(np.int64)

    def joined(source: np.ndarray, logit: np.ndarray | int | float) -> np.ndarray:
        return np.concatenate([source[order], np.full(count, logit, dtype=source.dtype)])

    return NodeTable(
        kind=joined(kind, LOGIT),
        layer=joined(layer, table.n_layers),
        position=joined(position, table.n_positions - 1),
        index=np.concatenate([index[order], token_ids]),
        activation=np.concatenate(
            [activation[order], logits.targets.value.numpy().astype(np.float32)]
        ),
        probability=np.concatenate(
            [np.zeros(len(order), np.float32), logits.probabilities.numpy().astype(np.float32)]
        ),
        label=labels[order].tolist() + run.model.token_texts(logits.tokens.tolist()),
    )


def _edges(
    rows: Rows, node_of_column: Int[Tensor, " C"], node_of_target: Int[Tensor, " R"]
) -> Edges:
    targets, sources, weights = [], [], []
    for offset, block in rows.blocks:
        nodes = node_of_column[block.columns]
        present = nodes >= 0
        values = block.weights[:, present]
        row, column = values.nonzero(as_tuple=True)
        targets.append(node_of_target[block.rows + offset][row])
        sources.append(nodes[present][column])
        weights.append(values[row, column])
    return Edges.from_unsorted(
        target=torch.cat(targets).numpy(),
        source=torch.cat(sources).numpy(),
        weight=torch.cat(weights).float().numpy(),
    )


def _target_values(rows: Rows, node_of_target: Int[Tensor, " R"], n_sources: int) -> np.ndarray:
    values = np.full(n_sources + rows.n_logits, np.nan, dtype=np.float32)
    values[node_of_target.numpy()] = rows.targets.value.float().numpy()
    return values
