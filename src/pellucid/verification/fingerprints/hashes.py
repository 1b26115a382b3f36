"""Family `hash`: Weisfeiler and Lehman's labels of the pruned graph's nodes, hashed.

A node's first label is its kind, layer and role (in the variant `features`: also its feature
number). Each round replaces a label by one of itself, of the set of labels that its strong inputs
have, and of the set of labels of the nodes that it is a strong input of. Sets, not counts, and only
edges with `STRONG` of their target's row: else hardly two nodes of two graphs would have one label.
A label counts as much as its nodes hold of the influence that the labelled nodes hold.
"""

import numpy as np
from jaxtyping import Float64, UInt64

from pellucid.graphs.tables import FEATURE
from pellucid.verification.fingerprints.definition import ROUNDS, Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, ratio

STRONG = 0.05
"""The least share of its target's row that an edge must carry to tell labels apart."""
BUCKETS = 512
"""Columns of the hashed bag for each round."""

DEFINITIONS = (
    Definition(
        "hash.distinct_{round}",
        "different labels after so many rounds, by labelled nodes; 0 without any",
        stands="length",
    ),
    Definition(
        "hash.repeated_{round}",
        "chance that two draws of a labelled node, by influence, have one label",
        stands="text",
    ),
)


def labels(
    measured: MeasuredGraph, *, features: bool = False
) -> tuple[list[UInt64[np.ndarray, " K"]], Float64[np.ndarray, " K"]]:
    """The labels of K nodes after every round, and what share of influence each node holds.

    Args:
        measured: the graph; its kept nodes that hold influence or are logits are labelled.
        features: let feature numbers tell features apart.
    """
    nodes, edges = measured.nodes, measured.edges
    kept_nodes, kept_edges = measured.pruned
    named = np.flatnonzero(kept_nodes & (measured.influence + measured.probability > 0))
    number = np.full(len(nodes), -1, dtype=np.int64)
    number[named] = np.arange(len(named))
    strong = np.flatnonzero(kept_edges & (measured.shares >= STRONG))
    source, target = number[edges.source[strong]], number[edges.target[strong]]
    inside = (source >= 0) & (target >= 0)
    source, target = source[inside], target[inside]
    columns = [nodes.kind, nodes.layer, measured.role]
    if features:
        columns.append(np.where(nodes.kind == FEATURE, nodes.index, -1))
    own = np.zeros(len(named), dtype=np.uint64)
    for column in columns:
        own = _mixed(own ^ (column[named].astype(np.int64) + 1).astype(np.uint64))
    found = [own]
    for _ in range(ROUNDS):
        before = _label_sets(target, own[source], len(named))
        after = _label_sets(source, own[target], len(named))
        own = _mixed(_mixed(_mixed(own) ^ before) + after)
        found.append(own)
    held = measured.influence[named] + measured.probability[named]
    total = held.sum()
    return found, held / total if total > 0 else held


def _label_sets(
    node: np.ndarray, label: UInt64[np.ndarray, " e"], size: int
) -> UInt64[np.ndarray, " K"]:
    """For every node a number for the set of labels given to it."""
    order = np.lexsort((label, node))
    node, label = node[order], label[order]
    fresh = np.ones(len(node), dtype=bool)
    fresh[1:] = (node[1:] != node[:-1]) | (label[1:] != label[:-1])
    result = np.zeros(size, dtype=np.uint64)
    np.add.at(result, node[fresh], _mixed(label[fresh]))
    return result


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A fixed scrambling of 64-bit numbers (splitmix64, Steele et al. 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    rounds, held = labels(measured)
    found = {}
    for number, found_labels in enumerate(rounds):
        distinct, inverse = np.unique(found_labels, return_inverse=True)
        mass = np.bincount(inverse.reshape(-1), held, len(distinct))
        found[f"hash.distinct_{number}"] = ratio(len(distinct), len(found_labels))
        found[f"hash.repeated_{number}"] = float(mass @ mass)
    return found


HASH = Family(about="neighbourhoods, hashed", definitions=DEFINITIONS, measure=_measure)
