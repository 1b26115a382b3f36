"""Head loadings: an edge split by the attention head that first reads its source.

An edge of a graph sums over all paths from source to target: some stay in the residual stream (and
in skip connections), the others pass one or more attention heads. Every path of the second kind
has a first head, the one that reads what the source wrote; so

    edge = residual part + sum over layers m and heads h of the paths whose first head is (m, h)

is an exact partition. (The name is from Kamath et al. 2025, "Tracing Attention Computation Through
Feature Interactions"; the partition by first head is ours.) It is computed where the two directions
meet: a source is pushed up through residual and skip connections alone, a target's gradient is
pulled down through everything, and at every head what the one reads is multiplied with what the
other asks for.

Shape suffixes: E edges, R target rows, W window, B slabs, S positions, H query heads, e head width,
d model width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.attention.sources import SourceKey, writes
from pellucid.attribution.linearise import LinearBlock, LinearModel
from pellucid.attribution.targets import Targets
from pellucid.core.types import Site

ROWS_AT_ONCE = 32
MOST_VALUES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """K vectors written into the residual stream, each at one position.

    Attributes:
        position: where each is written, [K].
        parts: for each depth (see `LinearModel.depth`; 4l + 4 is the output of block l), which of
            the K sources are written there and what they write.
    """

    position: Int[Tensor, " K"]
    parts: Mapping[int, tuple[Int[Tensor, " n"], Float[Tensor, "n d"]]]

    @classmethod
    def of(cls, linear: LinearModel, keys: Sequence[SourceKey]) -> "Sources":
        """Features, errors and tokens by name."""
        by_depth: dict[int, list[tuple[int, Tensor]]] = {}
        for number, key in enumerate(keys):
            for write in writes(linear, key):
                depth = _depth_written(linear, write.site)
                by_depth.setdefault(depth, []).append((number, write.vector))
        return cls(
            position=torch.tensor([key.position for key in keys], dtype=torch.long),
            parts={
                depth: (
                    torch.tensor([number for number, _ in part]),
                    torch.stack([vector for _, vector in part]),
                )
                for depth, part in by_depth.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLoadings:
    """E edges, each taken apart by the first head on its paths.

    Attributes:
        residual: what reaches the target past no head at all.
        heads: what each head of each layer passes on, [E, layers, heads]; with `residual` it sums
            to the edge.
        query: the position whose attention passes most of that, -1 where nothing passes.
    """

    residual: Float[Tensor, " E"]
    heads: Float[Tensor, "E L H"]
    query: Int[Tensor, "E L H"]

    def totals(self) -> Float[Tensor, " E"]:
        """The weights of the edges."""
        return self.residual + self.heads.sum(dim=(1, 2))


@torch.no_grad()
def head_loadings(
    linear: LinearModel,
    targets: Targets,
    sources: Sources,
    target: Int[Tensor, " E"],
    source: Int[Tensor, " E"],
) -> HeadLoadings:
    """Split edges by head.

    Args:
        linear: the affine map.
        targets: the rows that edges lead to.
        sources: what they come from.
        target, source: each edge, as numbers of a target row and of a source.
    """
    slabs = _Slabs(sources, len(linear.tokens))
    n_heads = len(linear.blocks[0].pattern)
    residual = targets.vectors.new_zeros(len(target))
    heads = targets.vectors.new_zeros(len(target), len(linear.blocks), n_heads)
    query = torch.full(heads.shape, -1)
    values = []
    for depth, x_BSd in slabs.pushed(linear):
        here = (targets.depth[target] == depth).nonzero().squeeze(1)
        row, from_ = target[here], source[here]
        same = targets.position[row] == sources.position[from_]
        products = (targets.vectors[row] * slabs.of(x_BSd, from_)).sum(dim=1)
        residual[here] = torch.where(same, products, torch.zeros_like(products))
        if depth % 4 == 1:
            values.append(slabs.of(x_BSd, torch.arange(len(sources.position))))
    for start in range(0, len(targets), ROWS_AT_ONCE):
        rows = torch.arange(start, min(start + ROWS_AT_ONCE, len(targets)))
        mine = ((target >= start) & (target < start + len(rows))).nonzero().squeeze(1)
        for layer, asked_RWHe in _asked_of_heads(linear, targets.select(rows)):
            block, window = linear.blocks[layer], asked_RWHe.shape[1]
            seen = mine[sources.position[source[mine]] < window]
            for edge in seen.split(max(1, MOST_VALUES // asked_RWHe[0].numel())):
                read_EHe = _read_by_heads(block, values[layer][source[edge]])
                wanted_EWH = (asked_RWHe[target[edge] - start] * read_EHe[:, None]).sum(dim=3)
                at = sources.position[source[edge]]
                passed_EWH = wanted_EWH * block.pattern[:, :window, at].permute(2, 1, 0)
                heads[edge, layer] = passed_EWH.sum(dim=1)
                strongest = passed_EWH.abs().max(dim=1)
                query[edge, layer] = strongest.indices.masked_fill(strongest.values == 0, -1)
    return HeadLoadings(residual=residual, heads=heads, query=query)


class _Slabs:
    """Sources packed into as few residual streams as possible: one source a position of each.

    Everything but attention acts on one position at a time, so that those of one slab stay apart.
    """

    def __init__(self, sources: Sources, n_positions: int) -> None:
        self.sources, self.n_positions = sources, n_positions
        order = torch.argsort(sources.position, stable=True)
        counts = torch.bincount(sources.position, minlength=n_positions)
        first = counts.cumsum(0) - counts
        self.slab = torch.empty_like(order)
        self.slab[order] = torch.arange(len(order)) - first[sources.position[order]]

    def of(self, x_BSd: Tensor, chosen: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The part of the slabs that belongs to some sources."""
        return x_BSd[self.slab[chosen], self.sources.position[chosen]]

    def pushed(self, linear: LinearModel) -> Iterator[tuple[int, Float[Tensor, "B S d"]]]:
        """What the sources are at every depth, having passed no attention."""
        n_slabs = int(self.slab.max()) + 1 if len(self.slab) else 0
        x_BSd = linear.tokens.new_zeros(n_slabs, self.n_positions, linear.tokens.shape[1])
        for layer, block in enumerate(linear.blocks):
            for site in (Site("resid_pre", layer), Site("resid_mid", layer)):
                depth = linear.depth(site)
                x_BSd = self._written(x_BSd, depth - 1)
                yield depth - 1, x_BSd
                x_BSd = self._written(_cut(linear, x_BSd, depth), depth)
                yield depth, x_BSd
            if block.path is not None:
                x_BSd = x_BSd + block.path.push(x_BSd)
        top = 4 * len(linear.blocks)
        x_BSd = self._written(x_BSd, top)
        yield top, x_BSd
        yield top + 1, self._written(_cut(linear, x_BSd, top + 1), top + 1)

    def _written(self, x_BSd: Tensor, depth: int) -> Tensor:
        if depth not in self.sources.parts:
            return x_BSd
        chosen, vectors = self.sources.parts[depth]
        written = x_BSd.clone()
        written[self.slab[chosen], self.sources.position[chosen]] += vectors
        return written


def _cut(linear: LinearModel, x: Tensor, depth: int) -> Tensor:
    """A residual, or a gradient at one, past a depth: nothing where an SAE explains it."""
    return torch.zeros_like(x) if depth in linear.cuts else x


def _asked_of_heads(
    linear: LinearModel, targets: Targets
) -> Iterator[tuple[int, Float[Tensor, "R W H e"]]]:
    """For every layer, the gradient of each row at what each head writes at each position."""
    window = int(targets.position.max()) + 1
    zeros_RWd = targets.vectors.new_zeros(len(targets), window, targets.vectors.shape[1])

    def joined(g_RWd: Tensor, depth: int) -> Tensor:
        """With the rows that read at a depth, and below an SAE there those that it reads."""
        return _with_rows(
            _cut(linear, _with_rows(g_RWd, targets, depth), depth), targets, depth - 1
        )

    g_RWd = joined(zeros_RWd, 4 * len(linear.blocks) + 1)
    for layer in reversed(range(len(linear.blocks))):
        block = linear.blocks[layer]
        passed = zeros_RWd if block.path is None else block.path.pull(g_RWd)
        if not block.parallel:
            g_RWd = joined(g_RWd + passed, 4 * layer + 3)
        asked_RWHe = (g_RWd @ block.w_o.T).unflatten(2, (len(block.pattern), -1))
        yield layer, asked_RWHe
        pattern_HWW = block.pattern[:, :window, :window]
        mixed_RWHe = torch.einsum("hqk,rqhe->rkhe", pattern_HWW, asked_RWHe)
        groups = len(block.pattern) // block.group
        by_group = mixed_RWHe.unflatten(2, (groups, block.group)).sum(3)
        g_RWd = g_RWd + by_group.flatten(2) @ block.w_v.T
        if block.parallel:
            g_RWd = g_RWd + passed
        g_RWd = joined(g_RWd, 4 * layer + 1)


def _with_rows(g_RWd: Tensor, targets: Targets, depth: int) -> Tensor:
    """Gradients with those of the rows that start at a depth."""
    rows = (targets.depth == depth).nonzero().squeeze(1)
    started = g_RWd.clone()
    started[rows, targets.position[rows]] += targets.vectors[rows]
    return started


def _read_by_heads(block: LinearBlock, x_Ed: Float[Tensor, "E d"]) -> Float[Tensor, "E H e"]:
    """What the value projection of every head makes of a residual."""
    groups = len(block.pattern) // block.group
    return (x_Ed @ block.w_v).unflatten(1, (groups, -1)).repeat_interleave(block.group, dim=1)


def _depth_written(linear: LinearModel, site: Site) -> int:
    match site.kind:
        case "embed":
            return 0
        case "mlp_out":
            return 4 * site.layer + 4
        case _:
            return linear.depth(site)
