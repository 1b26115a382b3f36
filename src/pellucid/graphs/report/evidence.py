"""What a report is about: a graph, and the further graphs that say how stable it is."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pellucid.graphs.compare import Comparison, compare
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.report.shape import shape
from pellucid.graphs.stability import (
    Stability,
    ThresholdStability,
    stability,
    threshold_stability,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """A graph and what was traced beside it.

    Attributes:
        graph: the graph, unpruned, with its causal check.
        paraphrases: graphs of other prompts that should be answered in the same way, same
            dictionaries.
        compared: by name, graphs of the same prompt with other dictionaries.
        settings: how the graph was made, JSON-able; shown as it is.
        seed: of the bootstraps and permutations.
    """

    graph: AttributionGraph
    paraphrases: tuple[AttributionGraph, ...] = ()
    compared: dict[str, AttributionGraph] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def thresholds(self) -> ThresholdStability:
        """Agreement of the graph with itself between neighbouring pruning thresholds."""
        draws = _draws(self.graph)
        return threshold_stability(self.graph, bootstraps=draws, seed=self.seed)

    @cached_property
    def wording(self) -> Stability | None:
        """Agreement between the graph and those of its paraphrases; None without any."""
        if not self.paraphrases:
            return None
        return stability([self.graph, *self.paraphrases], seed=self.seed)

    @cached_property
    def dictionaries(self) -> dict[str, Comparison]:
        """The graph compared with that of every other dictionary set, features by their place.

        Numbers of features mean nothing across dictionaries, so the features of one layer and
        position count as one.
        """
        return {
            name: compare(
                self.graph, other, features="cell", bootstraps=_draws(other), seed=self.seed
            )
            for name, other in self.compared.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The figures, without the graphs."""
        return {
            "thresholds": self.thresholds.to_json(),
            "paraphrases": None if self.wording is None else self.wording.to_json(),
            "dictionaries": {
                name: comparison.to_json(limit=0) | {"shape": shape(self.compared[name]).to_json()}
                for name, comparison in self.dictionaries.items()
            },
            "shape": shape(self.graph).to_json(),
        }


def _draws(graph: AttributionGraph) -> int:
    """How often to resample: a thousand times, less where a graph has millions of edges."""
    return int(min(1000, max(100, 2e8 // max(len(graph.edges), 1))))
