"""Heat maps: tokens across, places up, colours that are white at no effect."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

_CELL = 0.42  # inches
_LONGEST_LABEL = 18
_MOST_NUMBERS = 400


def heat_map(
    title: str,
    panels: Mapping[str, Float[np.ndarray, "R P"]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    unit: str = "share of the gap",
) -> Any:
    """A matplotlib figure of maps side by side, on one scale of colours.

    Args:
        title: of the whole.
        panels: map by title; the first decides nothing more than its place.
        rows: names of the places, the lowest first; they are drawn from bottom to top.
        columns: texts of the tokens, drawn as they are (no markup is read).
        unit: of the values, beside the scale.
    """
    from matplotlib.figure import Figure

    size = max(float(np.nanmax(np.abs(values), initial=0.0)) for values in panels.values()) or 1.0
    width = 1.2 + len(panels) * (len(columns) * _CELL + 0.4)
    height = 1.9 + len(rows) * _CELL * 0.8
    figure = Figure(figsize=(max(width, 4.0), height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    image: Any = None
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(
            values, cmap="RdBu_r", vmin=-size, vmax=size, origin="lower", aspect="auto"
        )
        axis.set_title(_plain(name), fontsize=9)
        axis.set_xticks(range(len(columns)), [_plain(_short(text)) for text in columns])
        axis.tick_params(axis="x", labelrotation=90, labelsize=8)
        if values.size <= _MOST_NUMBERS:
            _write_numbers(axis, values, size)
    axes[0].set_yticks(range(len(rows)), [_plain(name) for name in rows], fontsize=8)
    figure.suptitle(_plain(title), fontsize=10)
    figure.colorbar(image, ax=list(axes), label=unit, shrink=0.8)
    return figure


def _write_numbers(axis: Any, values: Float[np.ndarray, "R P"], size: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if abs(value) >= 0.05 * size:
            ink = "white" if abs(value) > 0.6 * size else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", size=6, color=ink)


def _short(text: str) -> str:
    shown = text.strip() or repr(text)
    return shown if len(shown) <= _LONGEST_LABEL else shown[: _LONGEST_LABEL - 1] + "…"


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def bars(
    title: str,
    names: Sequence[str],
    values: Float[np.ndarray, " n"],
    spread: Float[np.ndarray, " n"],
) -> Any:
    """A matplotlib figure of one bar a name, and how large it is for random tokens.

    Args:
        title: of the whole.
        names: of the bars, the first lowest.
        values: lengths of the bars.
        spread: of the control, drawn as a grey band on either side of zero.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 1.2 + 0.2 * len(names)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(names))
    axis.barh(places, 2 * spread, left=-spread, color="0.85", label="control: random tokens (rms)")
    colours = np.where(values >= 0, "#b2182b", "#2166ac")
    axis.barh(places, values, height=0.5, color=list(colours), label="contribution")
    axis.set_yticks(places, [_plain(name) for name in names], fontsize=7)
    axis.axvline(0.0, color="black", linewidth=0.6)
    axis.set_xlabel("logits")
    axis.set_title(_plain(title), fontsize=10)
    axis.legend(fontsize=7)
    return figure


def curves(
    title: str, places: Sequence[str], lines: Mapping[str, Sequence[float]], unit: str
) -> Any:
    """A matplotlib figure of one line a name over places.

    Args:
        title: of the whole.
        places: along the x axis.
        lines: heights by name.
        unit: of the heights.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 1.5 + 0.6 * len(places)), 3.2), layout="constrained")
    axis = figure.subplots()
    for name, heights in lines.items():
        axis.plot(range(len(places)), heights, marker="o", label=_plain(name))
    axis.set_xticks(range(len(places)), [_plain(place) for place in places], rotation=90, size=8)
    axis.set_ylabel(unit)
    axis.set_title(_plain(title), fontsize=10)
    axis.legend(fontsize=7)
    return figure
