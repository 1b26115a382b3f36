"""The picture of a sweep: fidelity against L0, a panel a target and measure."""

from collections.abc import Sequence
from typing import Any

from pellucid.training.sweep.front import MEASURES, Point, pareto_front, points
from pellucid.training.sweep.rows import SweepRow

_AXES = {"fvu": "FVU of {target}", "kl": "KL with all MLPs replaced (nats a token)"}
_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#e08214", "#4d4d4d", "#35978f", "#c51b7d")


def sweep_picture(rows: Sequence[SweepRow]) -> Any:
    """A matplotlib figure: means over seeds with their range as bars, and the Pareto front.

    SAEs reconstruct the residual stream, transcoders predict MLP outputs: their FVU are not of the
    same thing, and stand in panels of their own. KL is drawn only of sets that replace MLPs.
    """
    from matplotlib.figure import Figure

    targets = list(dict.fromkeys(row.target for row in rows))
    panels = [(target, m, points(rows, target, m)) for target in targets for m in MEASURES]
    panels = [panel for panel in panels if panel[2]]
    labels = list(dict.fromkeys(map(_label, rows)))
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
    figure = Figure(figsize=(1 + 4 * len(panels), 4.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False).flatten()
    for axis, (target, measure, found) in zip(axes, panels, strict=True):
        for label, colour in colours.items():
            group = [point for point in found if _label(point) == label]
            if group:
                axis.errorbar(
                    [p.l0 for p in group],
                    [p.value for p in group],
                    xerr=_bars([(p.l0, *p.l0_range) for p in group]),
                    yerr=_bars([(p.value, *p.value_range) for p in group]),
                    fmt="o",
                    color=colour,
                    capsize=2,
                    markersize=4,
                    label=label,
                )
        front = pareto_front(found)
        axis.plot([p.l0 for p in front], [p.value for p in front], color="#999999", zorder=0)
        axis.set_xlabel("L0 (active features a token)", fontsize=9)
        axis.set_ylabel(_AXES[measure].format(target=target), fontsize=9)
        axis.legend(fontsize=7)
    figure.suptitle(
        "Lower and further left is better; grey: the Pareto front; bars: range over seeds",
        fontsize=9,
    )
    return figure


def _label(of: SweepRow | Point) -> str:
    """What has one colour: k and the sparsity go along L0."""
    rate = "" if of.learning_rate is None else f" rate={of.learning_rate:g}"
    return f"{of.kind} {of.activation} F={of.features:,}{rate}"


def _bars(spans: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    """Lengths below and above each mean, never negative by rounding."""
    below = [max(0.0, mean - low) for mean, low, _ in spans]
    return [below, [max(0.0, high - mean) for mean, _, high in spans]]
