"""Sparse counts of a graph over large vocabularies: its features by number, its hashed labels.

A feature's number in a bag is layer x F + feature, F features a layer; its positions are summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.tables import FEATURE
from pellucid.verification.fingerprints.definition import ROUNDS
from pellucid.verification.fingerprints.hashes import BUCKETS, labels
from pellucid.verification.fingerprints.measured import MeasuredGraph

BAGS: Mapping[str, str] = {
    "influence": "share of all nodes' influence, by feature",
    "direct": "signed direct effect on the explained logits (activation included), by feature",
    "effect": "signed effect on the explained logits over all paths, by feature",
    "hash": "share of influence by hashed label of kind, layer and role; a block for each round",
    "hash_features": "the same with feature numbers in the labels",
}
"""Bag -> what it holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """One sparse row.

    Attributes:
        numbers: where it is not 0, ascending.
        values: what stands there.
        size: how many columns there are.
    """

    numbers: Int64[np.ndarray, " n"]
    values: Float64[np.ndarray, " n"]
    size: int


def bags(measured: MeasuredGraph, features_per_layer: int) -> dict[str, Bag]:
    """All bags of a graph.

    Args:
        measured: the graph.
        features_per_layer: F, of the widest dictionary.

    Raises:
        GraphError: a feature's number is not below `features_per_layer`.
    """
    rows = np.flatnonzero(measured.is_kind(FEATURE))
    index = measured.nodes.index[rows]
    if len(index) and index.max() >= features_per_layer:
        raise GraphError(
            f"the graph has feature {index.max()}, but features_per_layer is "
            f"{features_per_layer}; give the number of features of the widest dictionary"
        )
    number = measured.nodes.layer[rows].astype(np.int64) * features_per_layer + index
    size = measured.n_layers * features_per_layer
    by_feature = {
        "influence": measured.held,
        "direct": measured.direct,
        "effect": measured.effects,
    }
    found = {name: _bag(number, values[rows], size) for name, values in by_feature.items()}
    for name, features in (("hash", False), ("hash_features", True)):
        rounds, held = labels(measured, features=features)
        buckets = [
            (own % np.uint64(BUCKETS)).astype(np.int64) + block * BUCKETS
            for block, own in enumerate(rounds)
        ]
        found[name] = _bag(
            np.concatenate(buckets), np.tile(held, ROUNDS + 1), BUCKETS * (ROUNDS + 1)
        )
    return found


def _bag(number: np.ndarray, values: np.ndarray, size: int) -> Bag:
    distinct, inverse = np.unique(number, return_inverse=True)
    summed = np.bincount(inverse.reshape(-1), values, len(distinct))
    present = summed != 0
    return Bag(distinct[present], summed[present], size)
