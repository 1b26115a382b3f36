"""The rows of one prompt, computed when first asked for and kept: every graph shares them.

A row depends on the prompt up to its target's position and on nothing else: not on what is being
explained, nor on what follows. So the graphs of all targets and of all prefixes of a prompt can be
put together from the same rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.attribution.columns import SourceTable
from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.memory import MemoryBudget
from pellucid.attribution.sweep import attribution_rows
from pellucid.attribution.targets import Targets, concatenate, feature_targets

SMALLEST_SUM = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRows:
    """A block of finished rows, with what every use of them needs, on the CPU.

    Attributes:
        features: the number of each row's feature in layer-major order, -1 where it is none.
        layers: ranges of rows by layer, highest first.
        columns: what the columns are; of these the first `n_sources` are not constants.
        weights: direct effects.
        size: sum of |weights| over sources that are not constants.
        value: what the row must sum to.
        error: by how much it does not, as a share of the value.
    """

    features: Int[Tensor, " R"]
    layers: list[tuple[int, slice]]
    columns: Int[Tensor, " C"]
    n_sources: int
    weights: Float[Tensor, "R C"]
    size: Float[Tensor, " R"]
    value: Float[Tensor, " R"]
    error: Float[Tensor, " R"]


class RowStore:
    """All rows computed so far of the matrix that `table` describes.

    Args:
        linear: the affine map.
        table: its columns.
        budget: how much memory all of this may take.
        dtype: of the gradients that rows are first computed with; `refine` then computes those
            that matter again in the model's own. None for the model's own at once.
    """

    def __init__(
        self,
        linear: LinearModel,
        table: SourceTable,
        budget: MemoryBudget | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.linear, self.table = linear, table
        self.budget = budget or MemoryBudget()
        self._rough = None if dtype is None else linear.to(dtype)
        self._is_rough = torch.full((len(table.feature_columns),), dtype is not None)
        self.blocks: list[KeptRows] = []
        self._block_of = torch.full((len(table.feature_columns),), -1)

    @property
    def rough(self) -> bool:
        """Whether rows are first computed in a lower precision."""
        return self._rough is not None

    @property
    def n_rows(self) -> int:
        """How many features have a row."""
        return int((self._block_of >= 0).sum())

    def explain(self, targets: Targets) -> tuple[list[KeptRows], list[Int[Tensor, " R"]]]:
        """Rows of what a graph explains, which are not kept, and which target each row is of."""
        blocks, numbers = zip(*self._compute(targets, None), strict=True)
        return list(blocks), list(numbers)

    def require(
        self,
        features: Int[Tensor, " n"],
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute the rows of those of these features that have none yet.

        Args:
            features: numbers in layer-major order.
            on_progress: called with how many of these features have a row by now.
        """
        missing = features[self._block_of[features] < 0]
        done = len(features) - len(missing)
        if len(missing) == 0:
            return
        missing = missing.sort().values
        self.budget.check_rows(len(missing), self.table.size)
        for block, _ in self._compute(self._targets(missing), missing, self._rough):
            self._keep(block)
            done += len(block.features)
            if on_progress is not None:
                on_progress(done)

    def refine(self, features: Int[Tensor, " n"]) -> Float[Tensor, " n2"]:
        """Compute the rough rows of some features again, in the model's own dtype.

        Returns:
            For each row that was rough, its largest error as a share of its largest weight.
        """
        rough = features[self._is_rough[features]].sort().values
        if len(rough) == 0:
            return torch.zeros(0)
        errors = []
        for block, _ in self._compute(self._targets(rough), rough):
            for row, feature in enumerate(block.features.tolist()):
                before = self._dense_row(self._block_of[feature], feature)
                exact = before.new_zeros(self.table.size)
                exact[block.columns] = block.weights[row]
                errors.append((before - exact).abs().max() / exact.abs().max().clamp_min(1e-30))
            self._keep(block)
        self._is_rough[rough] = False
        return torch.stack(errors)

    def _keep(self, block: KeptRows) -> None:
        self._block_of[block.features] = len(self.blocks)
        self.blocks.append(block)

    def _dense_row(self, number: Tensor, feature: int) -> Float[Tensor, " C"]:
        block = self.blocks[int(number)]
        dense = block.weights.new_zeros(self.table.size)
        dense[block.columns] = block.weights[int((block.features == feature).nonzero())]
        return dense

    def holding(self, chosen: Bool[Tensor, " F"]) -> list[tuple[KeptRows, Bool[Tensor, " R"]]]:
        """The blocks that hold rows of chosen features, with which of their rows these are."""
        held = []
        for number in self._block_of[chosen].unique().tolist():
            features = self.blocks[number].features
            current = self._block_of[features] == number  # not computed again since
            held.append((self.blocks[number], chosen[features] & current))
        return held

    def _targets(self, features: Int[Tensor, " n"]) -> Targets:
        layers, slots = self.table.feature_layers[features], self.table.feature_slots[features]
        return concatenate(
            [
                feature_targets(self.linear, layer, slots[layers == layer])
                for layer in layers.unique().tolist()
            ]
        )

    def _compute(
        self,
        targets: Targets,
        features: Int[Tensor, " n"] | None,
        linear: LinearModel | None = None,
    ) -> Iterator[tuple[KeptRows, Int[Tensor, " R"]]]:
        n_constants = self.table.size - self.table.bias_start
        for block in attribution_rows(
            linear or self.linear,
            self.table,
            targets,
            chunk_tokens=self.budget.chunk_tokens(self.linear.tokens.shape[1]),
        ):
            numbers, weights = block.rows.cpu(), block.weights.cpu()
            rows = torch.full_like(numbers, -1) if features is None else features[numbers]
            n_sources = len(block.columns) - n_constants
            value = targets.value[block.rows].cpu().double()
            total = weights.sum(dim=1, dtype=torch.float64)
            kept = KeptRows(
                features=rows,
                layers=[] if features is None else self._layer_ranges(rows),
                columns=block.columns,
                n_sources=n_sources,
                weights=weights,
                size=weights[:, :n_sources].abs().sum(dim=1).clamp_min(SMALLEST_SUM),
                value=value.float(),
                error=((total - value).abs() / value.abs().clamp_min(1e-6)).float(),
            )
            yield kept, numbers

    def _layer_ranges(self, features: Int[Tensor, " R"]) -> list[tuple[int, slice]]:
        ranges, start = [], 0
        for layer, same in groupby(self.table.feature_layers[features].tolist()):
            stop = start + len(list(same))
            ranges.append((layer, slice(start, stop)))
            start = stop
        return ranges
