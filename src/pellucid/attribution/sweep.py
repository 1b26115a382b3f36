"""Rows of the attribution matrix by a hand-written pull-back: no autograd, one forward pass.

A row holds the direct effect of every source on one target's pre-activation, under frozen
attention and norms (Anthropic, "Circuit Tracing", 2025). Targets are taken in chunks of
neighbouring positions. A chunk's gradients sweep the blocks from the top; a target joins at the
depth it reads, and positions after the chunk's last target are never touched, so that only the
causal cone is computed. Shape suffixes: R rows, W window, J rows that join, d model width,
H query heads, G key-value heads, e head width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.columns import SourceTable
from pellucid.attribution.cross_layer import CrossLayerWrites
from pellucid.attribution.linearise import LinearBlock, LinearModel, Written
from pellucid.attribution.targets import Targets

CHUNK_TOKENS = 1024
FEWEST_ROWS, MOST_ROWS = 32, 256
"""Rows times window of a chunk: few enough that its gradients stay in the cache and its window
is close to each row's own cone, enough for matrix products to run at full rate."""
CAUSAL_BLOCK = 128
"""Keys whose queries are mixed at once: queries before them have weight 0 and are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Finished rows: `weights[i, j]` is the effect of source `columns[j]` on target `rows[i]`.

    `rows` index the `Targets` given to the sweep and are sorted by layer, highest first.
    """

    rows: Int[Tensor, " R"]
    columns: Int[Tensor, " C"]
    weights: Float[Tensor, "R C"]


def attribution_rows(
    linear: LinearModel,
    table: SourceTable,
    targets: Targets,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Iterator[RowBlock]:
    """Compute every row of `targets`, in chunks whose size bounds the memory used.

    Args:
        linear: the affine map.
        table: its columns.
        targets: the rows wanted.
        chunk_tokens: rows times positions of a chunk, about.
    """
    fewest = max(1, FEWEST_ROWS * chunk_tokens // CHUNK_TOKENS)
    order = torch.argsort(targets.position * (4 * table.n_layers + 2) + targets.depth)
    end = len(order)
    while end > 0:
        window = int(targets.position[order[end - 1]]) + 1
        rows = min(MOST_ROWS, max(fewest, chunk_tokens // window))
        chunk = order[max(0, end - rows) : end]
        end -= len(chunk)
        chunk = chunk[torch.argsort(targets.depth[chunk], descending=True, stable=True)]
        n_layers = table.layers_below(int(targets.depth[chunk[0]]))
        weights = _Chunk(linear, table, targets.select(chunk), window, n_layers).sweep()
        yield RowBlock(rows=chunk, columns=table.window_columns(window, n_layers), weights=weights)


class _Chunk:
    """The sweep of one chunk: the gradients of its rows, and their weights as they are found.

    Rows are sorted by depth, deepest in the model first, so that those a place concerns are always
    a range: from `dead`, the rows that a cut has explained away, to those that have joined.
    """

    def __init__(
        self,
        linear: LinearModel,
        table: SourceTable,
        targets: Targets,
        window: int,
        n_layers: int,
    ) -> None:
        self.linear, self.table, self.targets = linear, table, targets
        layers = [table.layer_columns(layer, window) for layer in range(n_layers)]
        self.starts = list(accumulate((span.stop - span.start for span in layers), initial=0))
        self.tokens = slice(self.starts[-1], self.starts[-1] + window)
        self.embed_bias = self.tokens.stop
        self.own_bias = self.embed_bias + 1
        rows, width = len(targets), linear.tokens.shape[1]
        size = self.own_bias + 1 + table.n_layers
        self.weights = targets.constant.new_zeros(rows, size)
        # Gradients have the dtype of the weights they are pulled through; see `LinearModel.to`.
        self.g_RWd = linear.blocks[0].w_o.new_zeros(rows, window, width)
        by_depth = torch.bincount(targets.depth, minlength=4 * table.n_layers + 2)
        self.reading_from = by_depth.flip(0).cumsum(0).flip(0).tolist()
        self.dead = self.joined = 0

    @torch.no_grad()
    def sweep(self) -> Float[Tensor, "R C"]:
        """Pull every row back to the embedding; return all its weights."""
        top = 4 * self.table.n_layers + 1
        self._join_and_cut(top)
        for layer in reversed(range(self.table.n_layers)):
            block = self.linear.blocks[layer]
            above = self.joined
            self._contract_mlp(layer)
            skipped = None if block.path is None else block.path.pull(self.alive)
            if block.parallel:
                self._attend(layer, above)
            if skipped is not None:
                self.alive.add_(skipped)
            if not block.parallel:
                self._join_and_cut(4 * layer + 3)
                self._contract_attention_constant(layer, max(above, self.dead))
                self._attend(layer, max(above, self.dead))
            self._join_and_cut(4 * layer + 1)
        self._contract_tokens()
        self.weights[:, self.own_bias] = self.targets.constant
        return self.weights

    @property
    def alive(self) -> Float[Tensor, "R W d"]:
        """Gradients of the rows that have joined and that no cut has explained away."""
        return self.g_RWd[self.dead : self.joined]

    def _join_and_cut(self, depth: int) -> None:
        """Start the rows that read at a depth; then, where an SAE stands, let it explain them."""
        self._join(depth)
        if depth in self.linear.cuts:
            layer, written = self.linear.cuts[depth]
            self._contract(layer, written)
            self.alive.zero_()
            self.dead = self.joined
        self._join(depth - 1)

    def _join(self, depth: int) -> None:
        """Start the gradients of the rows that read at a depth, each at its position alone."""
        rows = torch.arange(self.joined, self.reading_from[depth])
        self.g_RWd[rows, self.targets.position[rows]] = self.targets.vectors[rows].to(
            self.g_RWd.dtype
        )
        self.joined = self.reading_from[depth]

    def _contract_mlp(self, layer: int) -> None:
        """Weights of everything that is written at an MLP's output."""
        block = self.linear.blocks[layer]
        if self.dead == self.joined:
            return
        if block.crossed is not None:
            self._contract_crossed(block.crossed)
        if block.written is not None:
            self._contract(layer, block.written)
        elif block.mlp_constant is not None:
            constant = block.mlp_constant[: self.g_RWd.shape[1]].flatten()
            self._add_constant(layer, self.alive.flatten(1).to(constant.dtype) @ constant)

    def _contract(self, layer: int, written: Written) -> None:
        """Weights of a layer's sources, and of its constants, on the rows that lie above it."""
        rows, window, _ = self.alive.shape
        if rows == 0:
            return
        sizes = [count + 1 for count in self.table.counts[layer][:window]]
        products = self._products(written[:window], sizes)
        columns = slice(self.starts[layer], self.starts[layer + 1])
        sources = self.table.source_slots[layer][: columns.stop - columns.start]
        self.weights[self.dead : self.joined, columns] += products[:, sources]
        constants = self.table.constant_slots[layer, :window]
        self._add_constant(layer, products[:, constants].sum(dim=1))

    def _contract_crossed(self, crossed: CrossLayerWrites) -> None:
        """Weights of lower layers' features through what they write to this one."""
        sizes = crossed.counts[: self.g_RWd.shape[1]]
        n = sum(sizes)
        products = self._products(crossed.vectors()[:n].split(sizes), sizes)
        starts = torch.tensor(self.starts)[crossed.source_layers[:n]]
        columns = (starts + crossed.offsets[:n]).to(products.device)
        self.weights[self.dead : self.joined].index_add_(1, columns, products)

    def _products(self, written: Sequence[Tensor], sizes: list[int]) -> Float[Tensor, "R n"]:
        """Products of the living gradients with the vectors at each position, side by side."""
        g_RWd = self.alive.to(self.weights.dtype)
        products = g_RWd.new_empty(len(g_RWd), sum(sizes))
        for g_Rd, vectors, out in zip(
            g_RWd.unbind(1), written, products.split(sizes, dim=1), strict=True
        ):
            torch.mm(g_Rd, vectors.T, out=out)
        return products

    def _add_constant(self, layer: int, amount: Float[Tensor, " R"]) -> None:
        self.weights[self.dead : self.joined, self.own_bias + 1 + layer] += amount

    def _contract_attention_constant(self, layer: int, start: int) -> None:
        """The constant of the attention that rows read which have just joined below its MLP."""
        rows = torch.arange(start, self.joined)
        own = self.targets.select(rows)
        constant = self.linear.blocks[layer].attn_constant[own.position]
        self.weights[rows, self.own_bias + 1 + layer] += (own.vectors * constant).sum(dim=1)

    def _attend(self, layer: int, above: int) -> None:
        """Add to gradients at a block's middle what its attention sends to the block's input.

        Rows from `above` on have just joined. Below the first attention only tokens are left to
        contract with, so there nothing is sent and their images are contracted instead.
        """
        if layer == 0 and self.linear.attended is not None:
            self._contract_attended(self.linear.attended)
            return
        block = self.linear.blocks[layer]
        if above > self.dead:
            g_RWd = self.g_RWd[self.dead : above]
            values_RWk = _mixed_values(block, g_RWd)
            g_RWd.view(-1, g_RWd.shape[2]).addmm_(values_RWk.flatten(0, 1), block.w_v.T)
        if self.joined > above:
            own = self.targets.select(torch.arange(above, self.joined))
            vectors = own.vectors.to(self.g_RWd.dtype)
            pattern_JWH, sent_JHd = _sent_from_one_position(
                block, vectors, own.position, self.g_RWd.shape[1]
            )
            self.g_RWd[above : self.joined].baddbmm_(pattern_JWH, sent_JHd)

    def _contract_attended(self, attended: tuple[Tensor, ...]) -> None:
        """Weights of tokens and of the embedding's constant through the first attention."""
        rows = slice(self.dead, self.joined)
        for position, g_Rd in enumerate(self.alive.to(self.weights.dtype).unbind(1)):
            products = g_Rd @ attended[position].T
            seen = slice(self.tokens.start, self.tokens.start + position + 1)
            self.weights[rows, seen] += products[:, :-1]
            self.weights[rows, self.embed_bias] += products[:, -1]

    def _contract_tokens(self) -> None:
        """Weights of the tokens and of the embedding's constant, straight from the embedding."""
        window = self.g_RWd.shape[1]
        written_W2d = torch.stack(
            [self.linear.tokens[:window], self.linear.embed_constant[:window]], dim=1
        )
        g_WRd = self.g_RWd.to(self.weights.dtype).transpose(0, 1)
        products_WR2 = g_WRd @ written_W2d.transpose(1, 2)
        self.weights[:, self.tokens] += products_WR2[:, :, 0].T
        self.weights[:, self.embed_bias] += products_WR2[:, :, 1].sum(dim=0)


def _mixed_values(block: LinearBlock, g_RWd: Tensor) -> Tensor:
    """Gradient at the values of a frozen attention, [R, W, G e], from that at its output."""
    rows, window, width = g_RWd.shape
    heads, groups = len(block.pattern), len(block.pattern) // block.group
    e = len(block.w_o) // heads
    u_RWHe = (g_RWd.reshape(-1, width) @ block.w_o.T).view(rows, window, heads, e)
    u_HWk = u_RWHe.permute(2, 1, 0, 3).reshape(heads, window, rows * e)
    mixed_HWk = torch.empty_like(u_HWk)
    for start in range(0, window, CAUSAL_BLOCK):  # no query looks at a later key
        keys, queries = slice(start, min(start + CAUSAL_BLOCK, window)), slice(start, window)
        mixed_HWk[:, keys] = block.pattern[:, queries, keys].transpose(1, 2) @ u_HWk[:, queries]
    mixed_GWRe = mixed_HWk.view(groups, block.group, window, rows, e)
    mixed_GWRe = mixed_GWRe.sum(1) if block.group > 1 else mixed_GWRe[:, 0]
    return mixed_GWRe.permute(2, 1, 0, 3).reshape(rows, window, groups * e)


def _sent_from_one_position(
    block: LinearBlock,
    vectors_Jd: Float[Tensor, "J d"],
    position: Int[Tensor, " J"],
    window: int,
) -> tuple[Float[Tensor, "J W H"], Float[Tensor, "J H d"]]:
    """What attention sends back from gradients at one position a row.

    Each head sends one vector, to every position by its pattern; so only these vectors are
    multiplied out.
    """
    groups = len(block.pattern) // block.group
    u_JGHe = (vectors_Jd @ block.w_o.T).unflatten(1, (groups, block.group, -1))
    sent_GKd = u_JGHe.transpose(0, 1).flatten(1, 2) @ block.w_v.T.unflatten(0, (groups, -1))
    sent_JHd = sent_GKd.unflatten(1, (len(vectors_Jd), -1)).transpose(0, 1).flatten(1, 2)
    return block.pattern[:, position, :window].permute(1, 2, 0), sent_JHd
