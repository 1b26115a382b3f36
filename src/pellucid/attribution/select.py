"""Which features a capped graph keeps: by influence on the logits, refreshed as rows arrive."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.sweep import RowBlock, SourceTable, attribution_rows
from pellucid.attribution.targets import LogitTargets, Targets, concatenate, feature_targets

REFRESHES = 4
SMALLEST_BATCH = 64


@dataclass(slots=True)
class Rows:
    """All rows computed so far: logits first, then features in the order they were selected.

    Attributes:
        blocks: finished rows; `RowBlock.rows` index `targets` after adding the block's offset.
        selected: for each feature row, the feature's number in layer-major order.
    """

    targets: Targets
    n_logits: int
    blocks: list[tuple[int, RowBlock]] = field(default_factory=list)
    selected: list[int] = field(default_factory=list)

    def add(self, linear: LinearModel, table: SourceTable, targets: Targets) -> None:
        """Compute and keep the rows of further targets."""
        offset = len(self.targets)
        self.targets = concatenate([self.targets, targets])
        self._compute(linear, table, targets, offset)

    def _compute(
        self, linear: LinearModel, table: SourceTable, targets: Targets, offset: int
    ) -> None:
        for block in attribution_rows(linear, table, targets):
            self.blocks.append((offset, block))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows of the kept targets and what was left out.

    `unexplored` is the share of the logits' influence that ends in features without a row.
    """

    rows: Rows
    unexplored: float


def select_rows(
    linear: LinearModel,
    table: SourceTable,
    logits: LogitTargets,
    *,
    max_features: int,
    epsilon: float = 0.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Compute the rows of the logits, then of features, most influential first.

    Args:
        linear: the affine map of the prompt.
        table: its columns.
        logits: the logits to explain.
        max_features: the most feature rows to compute.
        epsilon: stop when the unexplored share of influence falls to this.
        on_progress: called with (rows done, rows at most).
    """
    total = len(table.feature_columns)
    goal = min(max_features, total)
    rows = Rows(targets=logits.targets.select(torch.arange(0)), n_logits=len(logits.tokens))
    rows.add(linear, table, logits.targets)
    batch = goal if goal == total else max(SMALLEST_BATCH, -(-goal // REFRESHES))
    open_features = torch.ones(total, dtype=torch.bool)
    while True:
        influence = feature_influence(table, rows, logits)
        waiting = torch.where(open_features, influence, torch.zeros_like(influence))
        unexplored = float(waiting.sum() / logits.probabilities.sum())
        done = len(rows.selected)
        if on_progress is not None:
            on_progress(done, goal)
        if done >= goal or unexplored <= epsilon:
            return Selection(rows=rows, unexplored=unexplored)
        ranked = torch.argsort(
            torch.where(open_features, influence, torch.full_like(influence, -1.0)),
            descending=True,
            stable=True,
        )
        chosen = ranked[: min(batch, goal - done)].sort().values
        open_features[chosen] = False
        rows.selected += chosen.tolist()
        rows.add(linear, table, _targets_of(linear, table, chosen))


def _targets_of(linear: LinearModel, table: SourceTable, chosen: Int[Tensor, " n"]) -> Targets:
    layers, slots = table.feature_layers[chosen], table.feature_slots[chosen]
    return concatenate(
        [
            feature_targets(linear, layer, slots[layers == layer])
            for layer in layers.unique().tolist()
        ]
    )


def feature_influence(table: SourceTable, rows: Rows, logits: LogitTargets) -> Float[Tensor, " F"]:
    """Influence of every active feature on the logits, through the rows computed so far.

    I = w A_hat + w A_hat^2 + ..., where A_hat holds the computed rows, |A| normalised to sum to
    one over all sources but the constants, and w the logit probabilities. Rows are visited by
    layer from the top, so one pass sums the whole series.
    """
    reached = logits.targets.value.new_zeros(table.size)
    selected = torch.tensor(rows.selected, dtype=torch.long)
    own_column = torch.cat([torch.full((rows.n_logits,), -1), table.feature_columns[selected]])
    for layer in reversed(range(table.n_layers + 1)):
        for offset, block in rows.blocks:
            target = block.rows + offset
            span = (rows.targets.layer[target] == layer).nonzero().squeeze(1)
            if len(span) == 0:
                continue
            target, part = target[span], slice(int(span[0]), int(span[-1]) + 1)
            weight = (
                logits.probabilities[target]
                if layer == table.n_layers
                else reached[own_column[target]]
            )
            n_sources = len(block.columns) - (table.size - table.bias_start)
            absolute = block.weights[part, :n_sources].abs()
            weight = weight / absolute.sum(dim=1).clamp_min(1e-10)
            reached.index_add_(0, block.columns[:n_sources], weight @ absolute)
    return reached[table.feature_columns]
