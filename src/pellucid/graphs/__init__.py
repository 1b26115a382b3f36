"""Attribution graphs: the artifact, its scores, pruning, reading, foreign formats and the page.

The names below are the public interface; see `docs/reading.md`. Those that need a heavier
library are imported when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pellucid.graphs.compare import Comparison, compare
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.identity import node_names
from pellucid.graphs.paths import find_nodes, flow_from_to, strongest_paths
from pellucid.graphs.prune import prune
from pellucid.graphs.recurring import recurring_circuit
from pellucid.graphs.scores import influence, scores
from pellucid.graphs.stability import stability, threshold_stability
from pellucid.graphs.supernodes import (
    Supernode,
    grouped,
    supernodes_by_hand,
    supernodes_of,
    with_supernodes,
)

if TYPE_CHECKING:
    from pellucid.graphs.formats.feature_files import FeatureFiles, write_feature_files
    from pellucid.graphs.formats.networkx import to_networkx
    from pellucid.graphs.formats.neuronpedia import from_neuronpedia, to_neuronpedia
    from pellucid.graphs.formats.neuronpedia_reader import read_neuronpedia
    from pellucid.graphs.formats.parquet import read_parquet, write_parquet
    from pellucid.graphs.matching import match_features
    from pellucid.graphs.page import to_html
    from pellucid.graphs.proposals import propose

__all__ = [
    "AttributionGraph",
    "Comparison",
    "FeatureFiles",
    "Supernode",
    "compare",
    "find_nodes",
    "flow_from_to",
    "from_neuronpedia",
    "grouped",
    "influence",
    "match_features",
    "node_names",
    "propose",
    "prune",
    "read_neuronpedia",
    "read_parquet",
    "recurring_circuit",
    "scores",
    "stability",
    "strongest_paths",
    "supernodes_by_hand",
    "supernodes_of",
    "threshold_stability",
    "to_html",
    "to_networkx",
    "to_neuronpedia",
    "with_supernodes",
    "write_feature_files",
    "write_parquet",
]

_HOMES = {
    "FeatureFiles": "formats.feature_files",
    "from_neuronpedia": "formats.neuronpedia",
    "match_features": "matching",
    "propose": "proposals",
    "read_neuronpedia": "formats.neuronpedia_reader",
    "read_parquet": "formats.parquet",
    "to_html": "page",
    "to_networkx": "formats.networkx",
    "to_neuronpedia": "formats.neuronpedia",
    "write_feature_files": "formats.feature_files",
    "write_parquet": "formats.parquet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid.graphs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pellucid.graphs.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
