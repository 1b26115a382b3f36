"""Which features a capped graph keeps: by influence, measured anew as rows arrive."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.attribution.columns import SourceTable
from pellucid.attribution.rows import KeptRows, RowStore

REFRESHES = 4
"""How often influence is measured anew on the way to a cap; four times as often to stop early."""
SMALLEST_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The features whose rows a graph holds, and what was left out.

    Attributes:
        chosen: which features.
        unexplored: the share of the influence that ends in features without a row.
        influence: of every source, through the rows of the chosen features.
    """

    chosen: Bool[Tensor, " F"]
    unexplored: float
    influence: Float[Tensor, " C"]


def select_features(
    store: RowStore,
    top: list[KeptRows],
    weights: list[Float[Tensor, " R"]],
    *,
    max_features: int,
    epsilon: float = 0.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Compute the rows of features, most influential first.

    Args:
        store: where rows are computed and kept.
        top: the rows of what is explained.
        weights: how much each of them counts.
        max_features: the most features to choose.
        epsilon: stop when the unexplored share of influence falls to this.
        on_progress: called with (rows done, rows at most).
    """
    table = store.table
    reachable = _reachable(table, top)
    total = int(reachable.sum())
    goal = min(max_features, total)
    refreshes = 4 * REFRESHES if epsilon > 0 else 1 if goal == total else REFRESHES
    batch = max(SMALLEST_BATCH, -(-goal // refreshes))
    chosen = torch.zeros_like(reachable)
    whole = float(sum(part.sum() for part in weights))
    while True:
        reached = column_influence(store, top, weights, chosen)
        influence = reached[table.feature_columns]
        waiting = torch.where(chosen, torch.zeros_like(influence), influence)
        unexplored = float(waiting.sum()) / whole
        done = int(chosen.sum())
        if on_progress is not None:
            on_progress(done, goal)
        if done >= goal or unexplored <= epsilon:
            return Selection(chosen=chosen, unexplored=unexplored, influence=reached)
        open_features = reachable & ~chosen
        ranked = torch.argsort(
            torch.where(open_features, influence, torch.full_like(influence, -1.0)),
            descending=True,
            stable=True,
        )
        more = ranked[: min(batch, goal - done)]
        store.require(more, _shifted(on_progress, done, goal))
        chosen[more] = True


def _shifted(
    on_progress: Callable[[int, int], None] | None, done: int, goal: int
) -> Callable[[int], None] | None:
    return None if on_progress is None else lambda more: on_progress(done + more, goal)


def column_influence(
    store: RowStore,
    top: list[KeptRows],
    weights: list[Float[Tensor, " R"]],
    chosen: Bool[Tensor, " F"],
) -> Float[Tensor, " C"]:
    """Influence of every source, through the rows of the chosen features.

    I = w A_hat + w A_hat^2 + ..., where A_hat holds the rows, |A| normalised to sum to one over all
    sources but the constants, and w the weights of what is explained. Rows are visited by layer
    from the top, so one pass sums the whole series (Ameisen et al. 2025).
    """
    table = store.table
    dtype = torch.promote_types(top[0].weights.dtype, torch.float32)
    reached = torch.zeros(table.size, dtype=dtype)
    for block, weight in zip(top, weights, strict=True):
        _spread(reached, block, slice(None), weight.to(reached))
    parts = sorted(
        (
            (layer, span, block, mine)
            for block, mine in store.holding(chosen)
            for layer, span in block.layers
        ),
        key=lambda part: -part[0],
    )
    for _layer, span, block, mine in parts:
        weight = reached[table.feature_columns[block.features[span]]] * mine[span]
        if weight.any():
            _spread(reached, block, span, weight)
    return reached


def _spread(
    reached: Float[Tensor, " C"], block: KeptRows, rows: slice, weight: Float[Tensor, " R"]
) -> None:
    share = (weight / block.size[rows]) @ block.weights[rows, : block.n_sources].abs()
    reached.index_add_(0, block.columns[: block.n_sources], share)


def _reachable(table: SourceTable, top: list[KeptRows]) -> Bool[Tensor, " F"]:
    """Features that what is explained can depend on: those among its rows' columns."""
    columns = torch.zeros(table.size, dtype=torch.bool)
    for block in top:
        columns[block.columns] = True
    return columns[table.feature_columns]
