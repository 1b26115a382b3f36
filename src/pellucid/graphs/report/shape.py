"""How deep a graph's explanation goes: the length of its paths and where its features lie."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence, logit_weights
from pellucid.graphs.tables import FEATURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where the influence of a graph passes.

    Attributes:
        steps: features on a path from the inputs to what is explained, on average over all paths,
            each weighed by the influence it carries. Features that a capped graph left out do not
            count, so there it is too small.
        depth: the mean layer of those features, 0 for the first and 1 for the last.
        by_layer: the share of the features' influence that each layer holds.
    """

    steps: float
    depth: float
    by_layer: list[float]

    def to_json(self) -> dict[str, Any]:
        """The shape as a JSON-able record."""
        return asdict(self)


def shape(graph: AttributionGraph) -> Shape:
    """Measure a graph's shape; NaN where no feature carries influence.

    A cross-layer transcoder can skip the steps that a circuit takes (Lange et al. 2026), and then
    has fewer of them than a transcoder a layer on the same prompt.
    """
    reached, is_feature = influence(graph), graph.nodes.is_kind(FEATURE)
    held = np.bincount(graph.nodes.layer[is_feature], reached[is_feature], minlength=graph.n_layers)
    start, total = logit_weights(graph).sum(), held.sum()
    layers = np.arange(graph.n_layers) / max(graph.n_layers - 1, 1)
    nothing = float("nan")
    return Shape(
        steps=float(total / start) if start > 0 else nothing,
        depth=float(layers @ held / total) if total > 0 else nothing,
        by_layer=(held / total if total > 0 else np.zeros(graph.n_layers)).tolist(),
    )
