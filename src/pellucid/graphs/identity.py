"""Which nodes of two graphs are the same: positions aligned by their tokens, features by number.

A node's key is four whole numbers (kind, layer, position, index), in the coordinates of the first
graph. Nodes with equal keys are the same node. Suffixes: N nodes, P positions.
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal

import numpy as np
from jaxtyping import Int64

from pellucid.core.errors import GraphError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import BIAS, ERROR, FEATURE, LOGIT, TOKEN

PositionRule = Literal["tokens", "start", "end"]
FeatureRule = Literal["same", "cell"]
FeatureMap = Mapping[tuple[int, int], tuple[int, int]]
"""(layer, feature) of the second graph -> (layer, feature) of the first."""


def align_positions(
    first: Sequence[str],
    second: Sequence[str],
    rule: PositionRule | Mapping[int, int] = "tokens",
) -> Int64[np.ndarray, " P"]:
    """For every position of the second prompt the same place in the first, -1 where none is.

    Args:
        first: token texts of the first prompt.
        second: token texts of the second prompt, P of them.
        rule: "tokens" aligns runs of equal tokens (Ratcliff and Obershelp, as `difflib`), and
            pairs replaced tokens one to one where as many went as came; "start" and "end" count
            from there; or a mapping from positions of the second to positions of the first.

    Raises:
        GraphError: a mapping that names a position which is not there, or one of them twice.
    """
    result = np.full(len(second), -1, dtype=np.int64)
    if isinstance(rule, Mapping):
        _check_mapping(rule, len(first), len(second))
        result[list(rule)] = list(rule.values())
        return result
    common = min(len(first), len(second))
    if rule == "start":
        result[:common] = np.arange(common)
    elif rule == "end":
        result[len(second) - common :] = np.arange(len(first) - common, len(first))
    elif rule == "tokens":
        matcher = SequenceMatcher(None, list(first), list(second), autojunk=False)
        for _, start, stop, other_start, other_stop in matcher.get_opcodes():
            if stop - start == other_stop - other_start:  # equal, or replaced one to one
                result[other_start:other_stop] = np.arange(start, stop)
    else:
        raise GraphError(
            f"position alignment is {rule!r}; give 'tokens', 'start', 'end' or a mapping"
        )
    return result


def _check_mapping(rule: Mapping[int, int], first: int, second: int) -> None:
    outside = [
        (own, other)
        for own, other in rule.items()
        if not (0 <= own < second and 0 <= other < first)
    ]
    if outside:
        raise GraphError(
            f"position alignment maps {outside[0][0]} to {outside[0][1]}; the second prompt has "
            f"{second} positions, the first {first}"
        )
    if len(set(rule.values())) < len(rule):
        raise GraphError("position alignment names a position of the first prompt twice")


def feature_rule(
    first: AttributionGraph, second: AttributionGraph, rule: FeatureRule | None
) -> FeatureRule:
    """`rule`, or "same" where none is given and both graphs are known to use one dictionary.

    Raises:
        GraphError: none is given and the graphs name different dictionaries, or an unknown rule.
    """
    if rule in ("same", "cell"):
        return rule
    if rule is not None:
        raise GraphError(f"feature alignment is {rule!r}; give 'same', 'cell' or a mapping")
    names = [graph.metadata.get("dictionaries") for graph in (first, second)]
    if None not in names and names[0] != names[1]:
        raise GraphError(
            f"the graphs come from different dictionaries ({names[0]!r} and {names[1]!r}), whose "
            "feature numbers mean different things; give features='cell' to compare places, "
            "'same' if the numbers do agree, or a mapping"
        )
    return "same"


def node_keys(
    graph: AttributionGraph,
    *,
    positions: Int64[np.ndarray, " P"] | None = None,
    features: FeatureRule | FeatureMap = "same",
) -> Int64[np.ndarray, "N 4"]:
    """The key of every node; of those without a counterpart, one that no other graph can have.

    A token is known by its position alone, so that a replaced word is the same input; a logit by
    its index alone (of several with one index, the first is the first). Biases get the key of
    their place, in the order of the table.

    Args:
        graph: the graph.
        positions: for each of its P positions the one in the other graph's coordinates, or -1.
        features: "same" where feature numbers agree; "cell" to count all features of a layer and
            position as one; or a mapping to the other graph's (layer, feature).

    Raises:
        GraphError: a mapping that sends two features to one.
    """
    nodes = graph.nodes
    keys = np.stack([nodes.kind, nodes.layer, nodes.position, nodes.index], axis=1).astype(np.int64)
    if positions is not None:
        place = nodes.position
        moved = np.where(positions < 0, -2 - np.arange(len(positions)), positions)
        keys[:, 2] = np.where(place < 0, place, moved[place])
    keys[nodes.kind == TOKEN, 3] = 0
    logits = np.flatnonzero(nodes.kind == LOGIT)
    keys[logits, 1], keys[logits, 2] = _occurrence(nodes.index[logits]), 0
    biases = np.flatnonzero(nodes.kind == BIAS)
    keys[biases, 3] = np.arange(len(biases))
    rows = np.flatnonzero(nodes.kind == FEATURE)
    if isinstance(features, Mapping):
        _rename(keys, rows, features)
    elif features == "cell":
        keys[rows, 3] = 0
    return keys


def _occurrence(values: np.ndarray) -> np.ndarray:
    """For every value how many equal ones come before it."""
    seen: dict[int, int] = {}
    result = np.zeros(len(values), dtype=np.int64)
    for row, value in enumerate(values.tolist()):
        result[row] = seen[value] = seen.get(value, -1) + 1
    return result


def _rename(keys: np.ndarray, rows: np.ndarray, features: FeatureMap) -> None:
    if len(set(features.values())) < len(features):
        raise GraphError("feature alignment sends two features to one; give each its own")
    for row in rows.tolist():
        layer, index = int(keys[row, 1]), int(keys[row, 3])
        keys[row, [1, 3]] = features.get((layer, index), (layer, -2 - index))


def node_names(graph: AttributionGraph) -> list[str]:
    """A unique name for every node that survives pruning and saving, as circuit-tracer 0.5.1 has.

    `{layer}_{feature}_{position}`, `{layer}_-1_{position}` for an error, `E_{token}_{position}`,
    `{n_layers + 1}_{token}_{position}` for a logit, `bias_{layer}_{position}` for a bias. Further
    nodes of the same place (logits, biases) get `-2`, `-3`, ... appended.
    """
    nodes = graph.nodes
    names: list[str] = []
    seen: dict[str, int] = {}
    columns = (nodes.kind, nodes.layer, nodes.position, nodes.index)
    for kind, layer, position, index in zip(*(c.tolist() for c in columns), strict=True):
        if kind == TOKEN:
            name = f"E_{index}_{position}"
        elif kind == BIAS:
            name = f"bias_{layer}_{position}"
        else:
            slot = -1 if kind == ERROR else index
            name = f"{layer + (kind == LOGIT)}_{slot}_{position}"
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names
