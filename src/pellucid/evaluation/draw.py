"""Pictures of an evaluation."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pellucid.harvest.density import DENSE_ABOVE, DENSITY_EDGES
from pellucid.harvest.fidelity import LayerFidelity

_COLUMNS = 4


def density_picture(layers: Sequence[LayerFidelity]) -> Any:
    """A matplotlib figure: how many features fire how often, one histogram a layer.

    Args:
        layers: with their density counted.
    """
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(1 + 2.6 * columns, 1 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    left = [10**edge for edge in DENSITY_EDGES[:-1]]
    widths = [10**high - 10**low for low, high in pairwise(DENSITY_EDGES)]
    for axis, layer in zip(axes, layers, strict=False):
        axis.bar(left, layer.density or [], width=widths, align="edge", color="#2166ac")
        axis.axvline(DENSE_ABOVE, color="#b2182b", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_title(
            f"layer {layer.layer}: dead {layer.dead:.1%}, dense {layer.dense:.1%}", fontsize=8
        )
    for axis in axes[len(layers) :]:
        axis.set_visible(False)
    figure.supxlabel("share of tokens that activate a feature", fontsize=9)
    figure.supylabel("features", fontsize=9)
    return figure
