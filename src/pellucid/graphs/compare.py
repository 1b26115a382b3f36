"""What differs between two graphs: of two prompts, two dictionaries or two checkpoints.

Suffixes: R rows, P positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import (
    FeatureMap,
    FeatureRule,
    PositionRule,
    align_positions,
    feature_rule,
    node_keys,
)
from pellucid.graphs.overlap import (
    FIGURES,
    Joint,
    Overlap,
    layout,
    null_figures,
    overlap,
    resampled_figures,
)
from pellucid.graphs.resampling import Figure, check_draws
from pellucid.graphs.tables import NODE_KINDS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Differences:
    """Nodes, or edges, that either pruned graph keeps, largest change first.

    A value is measured in the whole graph, so a node that pruning dropped has its influence here,
    and 0 stands for one that the graph does not have.

    Attributes:
        first: their numbers in the first graph: a node, or an edge's target and source; -1 where
            it has none. Of several features counted as one place, the first.
        second: their numbers in the second graph.
        kept_first: which of them the first graph keeps.
        kept_second: which of them the second graph keeps.
        value_first: influence as a share of the logits' probability, or edge weight.
        value_second: the same in the second graph.
    """

    first: Int64[np.ndarray, "R k"]
    second: Int64[np.ndarray, "R k"]
    kept_first: Bool[np.ndarray, " R"]
    kept_second: Bool[np.ndarray, " R"]
    value_first: Float64[np.ndarray, " R"]
    value_second: Float64[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def change(self) -> Float64[np.ndarray, " R"]:
        """The second graph's value less the first's."""
        return self.value_second - self.value_first

    @property
    def only_first(self) -> Bool[np.ndarray, " R"]:
        """Rows that the first graph alone keeps."""
        return self.kept_first & ~self.kept_second

    @property
    def only_second(self) -> Bool[np.ndarray, " R"]:
        """Rows that the second graph alone keeps."""
        return self.kept_second & ~self.kept_first

    @property
    def both(self) -> Bool[np.ndarray, " R"]:
        """Rows that both graphs keep."""
        return self.kept_first & self.kept_second

    def counts(self) -> dict[str, int]:
        """How many rows the first graph alone, the second alone, and both keep."""
        names = ("only_first", "only_second", "both")
        return {name: int(getattr(self, name).sum()) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Two graphs compared; the figures are explained in `Stability`.

    Attributes:
        graphs: the two graphs, whole.
        positions: for every position of the second prompt the one in the first, or -1.
        nodes: nodes of either pruned graph (k = 1), with their influence.
        edges: edges of either pruned graph (k = 2: target, source), with their weight.
        figures: each of the five figures by its name, with interval and chance level.
    """

    graphs: tuple[AttributionGraph, AttributionGraph]
    positions: Int64[np.ndarray, " P"]
    nodes: Differences
    edges: Differences
    figures: dict[str, Figure]

    def to_json(self, *, limit: int = 20) -> dict[str, Any]:
        """The figures, and the `limit` nodes and edges that changed most, as a JSON-able record."""
        return {
            "figures": {name: self.figures[name].to_json() for name in FIGURES},
            "positions": self.positions.tolist(),
            "nodes": self.nodes.counts() | {"changed": self._rows(self.nodes, limit)},
            "edges": self.edges.counts() | {"changed": self._rows(self.edges, limit)},
        }

    def _rows(self, table: Differences, limit: int) -> list[dict[str, Any]]:
        names = ("node",) if table.first.shape[1] == 1 else ("target", "source")
        rows = []
        for row in range(min(limit, len(table))):
            record: dict[str, Any] = {
                "first": float(table.value_first[row]),
                "second": float(table.value_second[row]),
                "kept": [bool(table.kept_first[row]), bool(table.kept_second[row])],
            }
            for place, name in enumerate(names):
                numbers = int(table.first[row, place]), int(table.second[row, place])
                which = int(numbers[0] < 0)
                record[name] = _described(self.graphs[which], numbers[which])
            rows.append(record)
        return rows


def _described(graph: AttributionGraph, node: int) -> dict[str, Any]:
    nodes = graph.nodes
    return {
        "kind": NODE_KINDS[nodes.kind[node]],
        "layer": int(nodes.layer[node]),
        "position": int(nodes.position[node]),
        "index": int(nodes.index[node]),
        "label": nodes.label[node],
    }


def compare(
    first: AttributionGraph,
    second: AttributionGraph,
    *,
    alignment: PositionRule | Mapping[int, int] = "tokens",
    features: FeatureRule | FeatureMap | None = None,
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
    bootstraps: int = 1000,
    nulls: int = 20,
    seed: int = 0,
) -> Comparison:
    """Compare two graphs node by node and edge by edge.

    Intervals are 95% percentile bootstrap intervals that draw features with replacement, or, for
    edges, target nodes with all their edges. They cover how much a figure hangs on single nodes
    of these two graphs. They do not cover other prompts or seeds (see `stability`), the choice of
    thresholds, or errors in the graphs themselves; nor are a graph's nodes independent, so read
    them as a lower bound of the doubt. A figure says something where it lies away from `null`:
    the same figure with the second graph's features shuffled within each layer.

    Args:
        first: an unpruned graph.
        second: another one.
        alignment: how positions correspond, as in `align_positions`.
        features: "same" where feature numbers agree, "cell" to count the features of one layer
            and position as one, or a mapping from (layer, feature) of the second graph to the
            first (see `match_features`). By default "same", refused where the graphs name
            different dictionaries.
        node_threshold: as in `prune`.
        edge_threshold: as in `prune`.
        bootstraps: how many draws for the intervals; 0 for none.
        nulls: how many permutations for the chance level; 0 for none.
        seed: of the draws and permutations.

    Raises:
        GraphError: an alignment that does not fit, a threshold outside 0..1, different
            dictionaries and no word about their features.
    """
    check_draws(bootstraps=bootstraps, nulls=nulls)
    mapping = features if isinstance(features, Mapping) else feature_rule(first, second, features)
    place = align_positions(first.tokens, second.tokens, alignment)
    own: FeatureRule = "cell" if mapping == "cell" else "same"
    layouts = [
        layout(graph, keys, node_threshold=node_threshold, edge_threshold=edge_threshold)
        for graph, keys in (
            (first, node_keys(first, features=own)),
            (second, node_keys(second, positions=place, features=mapping)),
        )
    ]
    rng = np.random.default_rng(seed)
    both = overlap(layouts[0], layouts[1])
    null = null_figures(layouts[0], layouts[1], nulls=nulls, rng=rng)
    return Comparison(
        graphs=(first, second),
        positions=place,
        nodes=_differences(both, both.nodes),
        edges=_differences(both, both.edges),
        figures=resampled_figures(both, null, bootstraps=bootstraps, rng=rng),
    )


def _differences(both: Overlap, table: Joint) -> Differences:
    order = np.argsort(-np.abs(table.value[1] - table.value[0]), kind="stable")
    rows = table.select(order)
    return Differences(
        first=both.numbers[0][rows.key],
        second=both.numbers[1][rows.key],
        kept_first=rows.kept[0],
        kept_second=rows.kept[1],
        value_first=rows.value[0],
        value_second=rows.value[1],
    )
