"""Replacement and completeness of the whole graph, also where only part of it was computed.

A capped graph has no rows for the features it dropped, and no columns for them either, so its own
scores are those of another, smaller graph. With the rows normalised over all sources, what is
known of the whole graph is exact: the influence that has reached tokens T and errors E, and the
influence U that waits at features without a row. From there it can only go on to tokens and
errors, through features of lower layers.
"""

import torch

from pellucid.attribution.columns import SourceTable
from pellucid.attribution.select import Selection


def whole_graph_scores(table: SourceTable, selection: Selection, start: float) -> dict[str, float]:
    """Bounds of the whole graph's scores: `replacement_low`, `_high`, `completeness_low`, `_high`.

    With T + E + U = 1, replacement T / (T + E) of the whole graph lies in [T, T + U]: all that
    waits goes to errors, or all to tokens. Completeness is 1 - E / D, where D sums the influence of
    all nodes, that of the logits included. At worst all that waits goes straight to errors; at best
    none does, and it passes a feature of every lower layer on its way, which makes D largest. Low
    and high are equal when every active feature has a row. NaN where no influence reaches a source.

    Args:
        table: what the columns are.
        selection: the features whose rows are known, and the influence through them.
        start: the summed weight of what is explained.
    """
    reached = selection.influence.double()
    errors = float(reached[table.error_columns.flatten()].sum())
    tokens = float(reached[table.token_start : table.bias_start].sum())
    features = reached[table.feature_columns]
    waiting = torch.where(selection.chosen, torch.zeros_like(features), features)
    left = float(waiting.sum())
    whole = tokens + errors + left
    if whole <= 0:
        return dict.fromkeys(_NAMES, float("nan"))
    mass = start + float(features.sum()) + tokens + errors
    longest = mass + float((waiting * (table.feature_layers + 1)).sum())
    return dict(
        zip(
            _NAMES,
            (
                tokens / whole,
                (tokens + left) / whole,
                1 - (errors + left) / (mass + left),
                1 - errors / longest,
            ),
            strict=True,
        )
    )


_NAMES = ("replacement_low", "replacement_high", "completeness_low", "completeness_high")
