"""The columns of the attribution matrix: every source of a local replacement model, in order.

By layer and position the features of that place and then its error; all tokens; the embedding's
constant, the target's own constant, and one constant a layer.
"""

from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, NODE_COLUMNS, TOKEN


class SourceTable:
    """What each column is, and which columns a chunk of targets can reach; all on the CPU."""

    def __init__(self, linear: LinearModel) -> None:
        layers = linear.local.layers
        self.n_layers, self.n_positions = len(layers), len(linear.tokens)
        counts = torch.stack(
            [torch.bincount(x.active.positions, minlength=self.n_positions) + 1 for x in layers]
        ).cpu()
        ends = counts.flatten().cumsum(0)
        self.starts = (ends - counts.flatten()).view_as(counts).tolist()
        self.counts = counts.tolist()
        self.constant_slots = (counts + 1).cumsum(1) - 1
        self.source_slots = [
            _all_but(slots, int(slots[-1]) + 1) for slots in self.constant_slots.unbind()
        ]
        self.token_start = int(ends[-1])
        self.bias_start = self.token_start + self.n_positions
        self.size = self.bias_start + self.n_layers + 2
        self.error_columns = (ends - 1).view_as(counts)
        is_feature = torch.ones(self.token_start, dtype=torch.bool)
        is_feature[self.error_columns.flatten()] = False
        self.feature_columns = is_feature.nonzero().squeeze(1)
        self.feature_positions = torch.cat([layer.active.positions for layer in layers]).cpu()
        sizes = torch.tensor([len(layer.active) for layer in layers])
        self.feature_layers = torch.repeat_interleave(torch.arange(self.n_layers), sizes)
        self.feature_slots = torch.cat([torch.arange(int(size)) for size in sizes])
        self.feature_starts = [0, *accumulate(sizes.tolist())]
        self._reach = [
            linear.depth(layer.write_site) if layer.cuts else 4 * number + 4
            for number, layer in enumerate(layers)
        ]

    def layers_below(self, depth: int) -> int:
        """How many layers, from the lowest, write something that a target at `depth` can read."""
        return sum(reach <= depth for reach in self._reach)

    def layer_columns(self, layer: int, window: int) -> slice:
        """The columns of one layer's features and errors at positions before `window`."""
        last = window - 1
        return slice(self.starts[layer][0], self.starts[layer][last] + self.counts[layer][last])

    def window_columns(self, window: int, n_layers: int) -> Int[Tensor, " C"]:
        """The columns of the lowest layers that targets at positions before `window` can have."""
        parts = []
        for layer in range(n_layers):
            columns = self.layer_columns(layer, window)
            parts.append(torch.arange(columns.start, columns.stop))
        parts.append(torch.arange(self.token_start, self.token_start + window))
        parts.append(torch.arange(self.bias_start, self.size))
        return torch.cat(parts)


def _all_but(left_out: Int[Tensor, " n"], size: int) -> Int[Tensor, " m"]:
    """The numbers below `size` that are not left out, ascending."""
    kept = torch.ones(size, dtype=torch.bool)
    kept[left_out] = False
    return kept.nonzero().squeeze(1)


def source_nodes(linear: LinearModel, table: SourceTable) -> dict[str, np.ndarray]:
    """What every column of the matrix is, as a graph's node table says it (`NODE_COLUMNS`)."""
    n = table.size
    out: dict[str, np.ndarray] = {
        name: np.full(n, -1 if name in ("layer", "position", "index") else 0, dtype)
        for name, dtype in NODE_COLUMNS.items()
    }
    active = [layer.active for layer in linear.local.layers]
    features = table.feature_columns.numpy()
    out["kind"][:] = BIAS
    out["kind"][features] = FEATURE
    out["layer"][features] = table.feature_layers.numpy()
    out["position"][features] = table.feature_positions.numpy()
    out["index"][features] = torch.cat([each.features for each in active]).cpu().numpy()
    out["activation"][features] = (
        torch.cat([each.activations for each in active]).float().cpu().numpy()
    )
    errors = table.error_columns.numpy()
    out["kind"][errors] = ERROR
    out["layer"][errors] = np.arange(table.n_layers)[:, None]
    out["position"][errors] = np.arange(table.n_positions)
    tokens = slice(table.token_start, table.bias_start)
    out["kind"][tokens] = TOKEN
    out["position"][tokens] = np.arange(table.n_positions)
    out["index"][tokens] = linear.local.run.ids.cpu().numpy()
    out["layer"][table.bias_start + 2 :] = np.arange(table.n_layers)
    return out
