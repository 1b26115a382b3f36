"""How much of a graph stays when what should not matter changes: wording, seeds, thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import (
    FeatureRule,
    PositionRule,
    align_positions,
    feature_rule,
    node_keys,
)
from pellucid.graphs.overlap import (
    FIGURES,
    Layout,
    layout,
    null_figures,
    overlap,
    plain_figures,
    resampled_figures,
)
from pellucid.graphs.resampling import Figure, check_draws, defined, interval, mean_defined
from pellucid.graphs.tables import FEATURE

STEP_FIGURES = tuple(name for name in FIGURES if name != "edge_correlation")
"""Figures of a graph against itself; pruning changes no weight, so edges always correlate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Agreement between graphs, averaged over all pairs of them.

    Each figure's `null` is its mean when the identities of one graph's features are permuted
    within each layer: what graphs of this size and shape share by chance.

    Attributes:
        graphs: how many graphs there are.
        node_jaccard: features that both pruned graphs keep, over those that either keeps.
        edge_jaccard: the same of edges, those from tokens and errors included.
        weighted_edge_jaccard: the same of edges weighed by their share of influence.
        influence_correlation: rank correlation of influence (measured in the whole graphs) over
            the features that both keep.
        edge_correlation: rank correlation of weights over the edges that both keep.
        features: how features were told apart: "same" (by number) or "cell" (by place alone).
    """

    graphs: int
    node_jaccard: Figure
    edge_jaccard: Figure
    weighted_edge_jaccard: Figure
    influence_correlation: Figure
    edge_correlation: Figure
    features: FeatureRule

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON-able record."""
        figures = {name: getattr(self, name).to_json() for name in FIGURES}
        return {"graphs": self.graphs, "features": self.features} | figures


def stability(
    graphs: Sequence[AttributionGraph],
    *,
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
    bootstraps: int = 1000,
    seed: int = 0,
    positions: PositionRule = "tokens",
    features: FeatureRule | None = None,
    nulls: int = 10,
) -> Stability:
    """Compare every pair of pruned graphs, as of paraphrases or of dictionary seeds.

    The interval comes from drawing graphs with replacement and averaging over the pairs of
    different graphs in the draw, so it tells what other graphs of this kind would give; it is
    rough below ten graphs and absent below three. It does not cover the choice of thresholds.

    Args:
        graphs: two or more graphs, unpruned.
        node_threshold: as in `prune`.
        edge_threshold: as in `prune`.
        bootstraps: how many draws of graphs.
        seed: of the draws and permutations.
        positions: how positions correspond, as in `align_positions`.
        features: "same" where feature numbers agree, "cell" to count the features of one layer
            and position as one (dictionaries of different seeds). By default "same", refused
            where graphs name different dictionaries.
        nulls: how many permutations a pair, for the chance level; 0 for none.

    Raises:
        GraphError: fewer than two graphs, a threshold outside 0..1, different dictionaries.
    """
    if len(graphs) < 2:
        raise GraphError(f"stability compares graphs, and there is {len(graphs)}; give at least 2")
    check_draws(bootstraps=bootstraps, nulls=nulls)
    rules = [feature_rule(graphs[0], graph, features) for graph in graphs[1:]]
    rng = np.random.default_rng(seed)
    layouts = [
        layout(
            graph,
            node_keys(graph, features=rules[0]),
            node_threshold=node_threshold,
            edge_threshold=edge_threshold,
        )
        for graph in graphs
    ]
    pairs = list(combinations(range(len(graphs)), 2))
    measured, chance = [], []
    for one, other in pairs:
        place = align_positions(graphs[one].tokens, graphs[other].tokens, positions)
        keys = node_keys(graphs[other], positions=place, features=rules[0])
        moved = replace(layouts[other], keys=keys)
        measured.append(plain_figures(overlap(layouts[one], moved)))
        chance += null_figures(layouts[one], moved, nulls=nulls, rng=rng)
    figures = {}
    for name in FIGURES:
        values = np.array([figures_[name] for figures_ in measured])
        mean = _MeanOverPairs(values=values, pairs=np.array(pairs))
        # One pair of graphs gives no spread between graphs.
        units = len(graphs) if len(graphs) > 2 else 0
        low, high = interval(mean, units, bootstraps=bootstraps, rng=rng)
        figures[name] = Figure(
            value=defined(mean(np.ones(len(graphs)))),
            low=low,
            high=high,
            null=mean_defined([figures_[name] for figures_ in chance]),
        )
    return Stability(graphs=len(graphs), features=rules[0], **figures)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _MeanOverPairs:
    """Mean over pairs of different graphs, each counted as often as its two graphs were drawn."""

    values: np.ndarray
    pairs: np.ndarray

    def __call__(self, draws: Float64[np.ndarray, " graphs"]) -> float:
        weight = draws[self.pairs[:, 0]] * draws[self.pairs[:, 1]]
        weight = np.where(np.isfinite(self.values), weight, 0)
        total = weight.sum()
        return float(weight @ np.nan_to_num(self.values)) / total if total > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdStep:
    """One graph pruned at two node thresholds.

    Attributes:
        thresholds: the lower and the higher node threshold.
        features: how many features either leaves.
        edges: how many edges either leaves.
        node_jaccard: features that both keep, over those that either keeps.
        edge_jaccard: the same of edges.
        weighted_edge_jaccard: the same, edges weighed by their share of influence, which is
            measured anew in each pruned graph.
        influence_correlation: rank correlation of influence, measured anew in each pruned graph,
            over the features that both keep.
    """

    thresholds: tuple[float, float]
    features: tuple[int, int]
    edges: tuple[int, int]
    node_jaccard: Figure
    edge_jaccard: Figure
    weighted_edge_jaccard: Figure
    influence_correlation: Figure

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON-able record."""
        figures = {name: getattr(self, name).to_json() for name in STEP_FIGURES}
        sizes = {name: list(getattr(self, name)) for name in ("thresholds", "features", "edges")}
        return sizes | figures


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdStability:
    """Agreement of one graph with itself between neighbouring thresholds, lowest first."""

    steps: tuple[ThresholdStep, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON-able record."""
        return {"steps": [step.to_json() for step in self.steps]}


def threshold_stability(
    graph: AttributionGraph,
    thresholds: Sequence[float] = (0.6, 0.7, 0.8, 0.9),
    *,
    edge_threshold: float = 0.98,
    bootstraps: int = 1000,
    seed: int = 0,
    nulls: int = 10,
) -> ThresholdStability:
    """Compare one graph, pruned at a threshold, with itself pruned at the next higher one.

    Pruned node sets are nearly nested, so the Jaccard index is close to a ratio of sizes; compare
    it with `null`, which keeps the sizes and shuffles which feature is which. Intervals draw
    nodes, or the targets of edges, with replacement: they tell how much a figure hangs on a few
    nodes of this graph, and nothing of other prompts.

    Args:
        graph: the unpruned graph.
        thresholds: node thresholds, two or more.
        edge_threshold: as in `prune`.
        bootstraps: how many draws.
        seed: of the draws and permutations.
        nulls: how many permutations, for the chance level; 0 for none.

    Raises:
        GraphError: fewer than two different thresholds, or one outside 0..1.
    """
    check_draws(bootstraps=bootstraps, nulls=nulls)
    levels = sorted({float(value) for value in thresholds})
    if len(levels) < 2:
        raise GraphError(f"thresholds are {list(thresholds)}; give at least two different ones")
    rng = np.random.default_rng(seed)
    keys = node_keys(graph)
    layouts = [
        layout(graph, keys, node_threshold=level, edge_threshold=edge_threshold, anew=True)
        for level in levels
    ]
    steps = []
    for (low, few), (high, many) in pairwise(zip(levels, layouts, strict=True)):
        null = null_figures(few, many, nulls=nulls, rng=rng)
        figures = resampled_figures(overlap(few, many), null, bootstraps=bootstraps, rng=rng)
        steps.append(
            ThresholdStep(
                thresholds=(low, high),
                features=(_kept_features(few), _kept_features(many)),
                edges=(int(few.kept_edges.sum()), int(many.kept_edges.sum())),
                **{name: figures[name] for name in STEP_FIGURES},
            )
        )
    return ThresholdStability(steps=tuple(steps))


def _kept_features(part: Layout) -> int:
    return int((part.kept_nodes & (part.keys[:, 0] == FEATURE)).sum())
