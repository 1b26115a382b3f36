"""Rows of the attribution matrix by a hand-written pull-back: no autograd, one forward pass.

A row holds the direct effect of every source on one target's pre-activation, under frozen
attention and norms (Anthropic, "Circuit Tracing", 2025). Targets are taken in chunks of
neighbouring positions. A chunk's gradients sweep the blocks from the top; a target joins at the
layer it reads, and positions after the chunk's last target are never touched, so that only the
causal cone is computed. Shape suffixes: R rows, W window, J rows that join, d model width,
H query heads, G key-value heads, e head width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearBlock, LinearModel
from pellucid.attribution.targets import Targets

CHUNK_TOKENS = 1024
FEWEST_ROWS, MOST_ROWS = 32, 256
"""Rows times window of a chunk: few enough that its gradients stay in the cache and its window
is close to each row's own cone, enough for matrix products to run at full rate."""


class SourceTable:
    """The columns of the attribution matrix and what each of them is.

    Order: by layer and position the features of that place and then its error; all tokens; the
    embedding's constant, the target's own constant, and one constant a layer.
    """

    def __init__(self, linear: LinearModel) -> None:
        local = linear.local.layers
        self.n_layers, self.n_positions = len(local), len(linear.tokens)
        counts = torch.tensor([[len(v) - 1 for v in block.written] for block in linear.blocks])
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
        sizes = torch.tensor([len(layer.features) for layer in local])
        self.feature_layers = torch.repeat_interleave(torch.arange(self.n_layers), sizes)
        self.feature_slots = torch.cat([torch.arange(int(size)) for size in sizes])

    def layer_columns(self, layer: int, window: int) -> slice:
        """The columns of one layer's features and errors at positions before `window`."""
        last = window - 1
        return slice(self.starts[layer][0], self.starts[layer][last] + self.counts[layer][last])

    def window_columns(self, window: int) -> Int[Tensor, " C"]:
        """All columns that a target at a position before `window` can have."""
        parts = []
        for layer in range(self.n_layers):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Finished rows: `weights[i, j]` is the effect of source `columns[j]` on target `rows[i]`.

    `rows` index the `Targets` given to the sweep and are sorted by layer, highest first.
    """

    rows: Int[Tensor, " R"]
    columns: Int[Tensor, " C"]
    weights: Float[Tensor, "R C"]


def attribution_rows(
    linear: LinearModel, table: SourceTable, targets: Targets
) -> Iterator[RowBlock]:
    """Compute every row of `targets`, in chunks whose size bounds the memory used."""
    order = torch.argsort(targets.position * (table.n_layers + 1) + targets.layer)
    end = len(order)
    while end > 0:
        window = int(targets.position[order[end - 1]]) + 1
        rows = min(MOST_ROWS, max(FEWEST_ROWS, CHUNK_TOKENS // window))
        chunk = order[max(0, end - rows) : end]
        end -= len(chunk)
        chunk = chunk[torch.argsort(targets.layer[chunk], descending=True, stable=True)]
        weights = _Chunk(linear, table, targets.select(chunk), window).sweep()
        yield RowBlock(rows=chunk, columns=table.window_columns(window), weights=weights)


class _Chunk:
    """The sweep of one chunk: the gradients of its rows, and their weights as they are found.

    Rows are sorted by layer, highest first, so that those a layer concerns always come first.
    """

    def __init__(
        self, linear: LinearModel, table: SourceTable, targets: Targets, window: int
    ) -> None:
        self.linear, self.table, self.targets = linear, table, targets
        layers = [table.layer_columns(layer, window) for layer in range(table.n_layers)]
        self.starts = list(accumulate((span.stop - span.start for span in layers), initial=0))
        self.tokens = slice(self.starts[-1], self.starts[-1] + window)
        self.embed_bias = self.tokens.stop
        self.own_bias = self.embed_bias + 1
        rows, width = len(targets), linear.tokens.shape[1]
        self.weights = targets.vectors.new_zeros(rows, self.own_bias + 1 + table.n_layers)
        self.g_RWd = targets.vectors.new_zeros(rows, window, width)
        by_layer = torch.bincount(targets.layer, minlength=table.n_layers + 1)
        self.reading_from = by_layer.flip(0).cumsum(0).flip(0).tolist()

    @torch.no_grad()
    def sweep(self) -> Float[Tensor, "R C"]:
        """Pull every row back to the embedding; return all its weights."""
        above = self._join(0, self.reading_from[-1])
        for layer in reversed(range(len(self.linear.blocks))):
            block = self.linear.blocks[layer]
            g_RWd = self.g_RWd[:above]
            self._contract(layer, g_RWd)
            skip = None if block.skip is None else block.skip.pull(g_RWd)
            if block.parallel:
                self._attend(layer, above, above)
            if skip is not None:
                g_RWd += skip
            joined = self._join(above, self.reading_from[layer])
            if not block.parallel:
                self._contract_attention_constant(layer, above, joined)
                self._attend(layer, above, joined)
            above = joined
        self._contract_tokens()
        self.weights[:, self.own_bias] = self.targets.constant
        return self.weights

    def _join(self, start: int, stop: int) -> int:
        """Start the gradients of some rows, each at its position alone."""
        rows = torch.arange(start, stop)
        self.g_RWd[rows, self.targets.position[rows]] = self.targets.vectors[rows]
        return stop

    def _contract(self, layer: int, g_RWd: Tensor) -> None:
        """Weights of a layer's sources, and of its constants, on the rows that lie above it."""
        rows, window, _ = g_RWd.shape
        if rows == 0:
            return
        written = self.linear.blocks[layer].written[:window]
        sizes = [count + 1 for count in self.table.counts[layer][:window]]
        products = g_RWd.new_empty(rows, sum(sizes))
        for g_Rd, vectors, out in zip(
            g_RWd.unbind(1), written, products.split(sizes, dim=1), strict=True
        ):
            torch.mm(g_Rd, vectors.T, out=out)
        columns = slice(self.starts[layer], self.starts[layer + 1])
        sources = self.table.source_slots[layer][: columns.stop - columns.start]
        self.weights[:rows, columns] = products[:, sources]
        constants = self.table.constant_slots[layer, :window]
        self.weights[:rows, self.own_bias + 1 + layer] += products[:, constants].sum(dim=1)

    def _contract_attention_constant(self, layer: int, start: int, stop: int) -> None:
        """The constant of the attention that rows read which have just joined below it."""
        own = self.targets.select(torch.arange(start, stop))
        constant = self.linear.blocks[layer].attn_constant[own.position]
        self.weights[start:stop, self.own_bias + 1 + layer] += (own.vectors * constant).sum(dim=1)

    def _attend(self, layer: int, above: int, joined: int) -> None:
        """Add to gradients at a block's middle what its attention sends to the block's input.

        Rows from `above` to `joined` have just joined. Below the first attention only tokens are
        left to contract with, so there nothing is sent and their images are contracted instead.
        """
        if layer == 0 and self.linear.attended is not None:
            self._contract_attended(self.linear.attended, joined)
            return
        block = self.linear.blocks[layer]
        if above > 0:
            g_RWd = self.g_RWd[:above]
            values_RWk = _mixed_values(block, g_RWd)
            g_RWd.view(-1, g_RWd.shape[2]).addmm_(values_RWk.flatten(0, 1), block.w_v.T)
        if joined > above:
            own = self.targets.select(torch.arange(above, joined))
            pattern_JWH, sent_JHd = _sent_from_one_position(block, own, self.g_RWd.shape[1])
            self.g_RWd[above:joined].baddbmm_(pattern_JWH, sent_JHd)

    def _contract_attended(self, attended: tuple[Tensor, ...], stop: int) -> None:
        """Weights of tokens and of the embedding's constant through the first attention."""
        for position, g_Rd in enumerate(self.g_RWd[:stop].unbind(1)):
            products = g_Rd @ attended[position].T
            seen = slice(self.tokens.start, self.tokens.start + position + 1)
            self.weights[:stop, seen] += products[:, :-1]
            self.weights[:stop, self.embed_bias] += products[:, -1]

    def _contract_tokens(self) -> None:
        """Weights of the tokens and of the embedding's constant, straight from the embedding."""
        window = self.g_RWd.shape[1]
        written_W2d = torch.stack(
            [self.linear.tokens[:window], self.linear.embed_constant[:window]], dim=1
        )
        products_WR2 = self.g_RWd.transpose(0, 1) @ written_W2d.transpose(1, 2)
        self.weights[:, self.tokens] += products_WR2[:, :, 0].T
        self.weights[:, self.embed_bias] += products_WR2[:, :, 1].sum(dim=0)


def _mixed_values(block: LinearBlock, g_RWd: Tensor) -> Tensor:
    """Gradient at the values of a frozen attention, [R, W, G e], from that at its output."""
    rows, window, width = g_RWd.shape
    heads, groups = len(block.pattern), len(block.pattern) // block.group
    e = len(block.w_o) // heads
    u_RWHe = (g_RWd.reshape(-1, width) @ block.w_o.T).view(rows, window, heads, e)
    u_HWk = u_RWHe.permute(2, 1, 0, 3).reshape(heads, window, rows * e)
    mixed_HWk = block.pattern[:, :window, :window].transpose(1, 2) @ u_HWk
    mixed_GWRe = mixed_HWk.view(groups, block.group, window, rows, e)
    mixed_GWRe = mixed_GWRe.sum(1) if block.group > 1 else mixed_GWRe[:, 0]
    return mixed_GWRe.permute(2, 1, 0, 3).reshape(rows, window, groups * e)


def _sent_from_one_position(
    block: LinearBlock, own: Targets, window: int
) -> tuple[Float[Tensor, "J W H"], Float[Tensor, "J H d"]]:
    """What attention sends back from gradients at one position a row.

    Each head sends one vector, to every position by its pattern; so only these vectors are
    multiplied out.
    """
    groups = len(block.pattern) // block.group
    u_JGHe = (own.vectors @ block.w_o.T).unflatten(1, (groups, block.group, -1))
    sent_GKd = u_JGHe.transpose(0, 1).flatten(1, 2) @ block.w_v.T.unflatten(0, (groups, -1))
    sent_JHd = sent_GKd.unflatten(1, (len(own), -1)).transpose(0, 1).flatten(1, 2)
    return block.pattern[:, own.position, :window].permute(1, 2, 0), sent_JHd
