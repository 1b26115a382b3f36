"""The two tables of an attribution graph: its nodes and its weighted edges.

Both check themselves when built, so that every graph in the program (and every graph read from a
file) obeys the same rules. Suffixes: N nodes, E edges.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from pellucid.core.errors import GraphError

NODE_KINDS = ("feature", "error", "token", "bias", "logit")
FEATURE, ERROR, TOKEN, BIAS, LOGIT = range(len(NODE_KINDS))


def as_array(values: Any, dtype: type[np.generic], name: str) -> np.ndarray:
    """`values` as a contiguous one-dimensional array of `dtype`.

    Raises:
        GraphError: another number of dimensions, or values that `dtype` cannot hold.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise GraphError(f"graph column {name!r} has shape {array.shape}; give one value a row")
    if array.dtype.kind not in "biuf":
        raise GraphError(f"graph column {name!r} holds values that are not numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    if np.issubdtype(dtype, np.integer) and not np.array_equal(converted, array):
        raise GraphError(f"graph column {name!r} has values that are not {dtype.__name__}")
    return converted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeTable:
    """One row a node, in the order features, errors, tokens, biases, logits.

    Features are ascending in (layer, position, index), errors in (layer, position), tokens in
    position, biases in (layer, position); logits keep the order of the tracer.

    Attributes:
        kind: index into `NODE_KINDS`.
        layer: 0..n_layers-1; -1 for tokens, n_layers for logits; a bias may have any of these.
        position: token position; -1 for a bias that belongs to none.
        index: feature number, vocabulary id (tokens and logits), else -1.
        activation: a feature's activation; a logit's value as target; else 0.
        probability: a logit's softmax probability; else 0.
        label: text shown for the node, "" where there is none.

    Raises:
        GraphError: columns of different lengths, or a row that breaks the rules above.
    """

    kind: UInt8[np.ndarray, " N"]
    layer: Int32[np.ndarray, " N"]
    position: Int32[np.ndarray, " N"]
    index: Int64[np.ndarray, " N"]
    activation: Float32[np.ndarray, " N"]
    probability: Float32[np.ndarray, " N"]
    label: list[str]

    def __post_init__(self) -> None:
        for name, dtype in NODE_COLUMNS.items():
            object.__setattr__(self, name, as_array(getattr(self, name), dtype, name))
        object.__setattr__(self, "label", list(self.label))
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise GraphError(f"graph node columns differ in length: {lengths}")
        if not all(isinstance(text, str) for text in self.label):
            raise GraphError("graph node labels must be text; give '' for a node without one")
        self._check_values()
        self._check_order()

    def __len__(self) -> int:
        return len(self.kind)

    def is_kind(self, *kinds: int) -> Bool[np.ndarray, " N"]:
        """Which nodes are of one of `kinds` (`FEATURE`, `ERROR`, ...)."""
        return np.isin(self.kind, kinds)

    def counts(self) -> dict[str, int]:
        """How many nodes there are of each kind, by name."""
        totals = np.bincount(self.kind, minlength=len(NODE_KINDS))
        return {name: int(total) for name, total in zip(NODE_KINDS, totals, strict=True)}

    def rank(self) -> Int64[np.ndarray, " N"]:
        """Depth of every node in the computation: an edge always leads to a higher rank.

        A layer's bias may reach that layer's features; its features and errors may not.
        """
        return 2 * self.layer.astype(np.int64) + (self.kind != BIAS)

    def select(self, keep: Bool[np.ndarray, " N"]) -> "NodeTable":
        """The rows where `keep` holds, in the same order."""
        columns = {name: getattr(self, name)[keep] for name in NODE_COLUMNS}
        labels = [text for text, kept in zip(self.label, keep, strict=True) if kept]
        return NodeTable(label=labels, **columns)

    def _check_values(self) -> None:
        unknown = self.kind >= len(NODE_KINDS)
        self._require(~unknown, "has an unknown kind")
        self._require(np.isfinite(self.activation), "has an activation that is not finite")
        self._require(
            (self.probability >= 0) & (self.probability <= 1), "has a probability outside 0..1"
        )
        named = self.is_kind(FEATURE, TOKEN, LOGIT)
        self._require(~named | (self.index >= 0), "has no feature number or vocabulary id")
        self._require((self.position >= 0) | (self.kind == BIAS), "has no position")
        self._require((self.layer == -1) | (self.kind != TOKEN), "is a token with a layer")

    def _check_order(self) -> None:
        keys = np.stack([self.kind, self.layer, self.position, self.index]).astype(np.int64)
        keys[2:, self.kind == LOGIT] = 0  # the tracer's order
        keys[3, self.kind == BIAS] = 0
        self._require(
            np.lexsort(keys[::-1]) == np.arange(len(self)),
            "is out of order; order: features, errors, tokens, biases, logits, each by (layer, "
            "position, index)",
        )
        repeated = (np.diff(keys, axis=1, prepend=-2) == 0).all(axis=0)
        self._require(~repeated | self.is_kind(BIAS, LOGIT), "is listed twice")

    def _require(self, valid: Bool[np.ndarray, " N"], problem: str) -> None:
        if not valid.all():
            raise GraphError(f"graph node {int(np.argmin(valid))} {problem}")


NODE_COLUMNS: dict[str, type[np.generic]] = {
    "kind": np.uint8,
    "layer": np.int32,
    "position": np.int32,
    "index": np.int64,
    "activation": np.float32,
    "probability": np.float32,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edges:
    """Direct effects, ascending in (target, source), each pair at most once.

    Attributes:
        target: node whose pre-activation (or logit minus mean logit) is affected.
        source: node that contributes.
        weight: the contribution, in the target's units; rows over all sources sum to the target.

    Raises:
        GraphError: columns of different lengths, a weight that is not finite, or rows out of order.
    """

    target: Int32[np.ndarray, " E"]
    source: Int32[np.ndarray, " E"]
    weight: Float32[np.ndarray, " E"]

    def __post_init__(self) -> None:
        for name, dtype in EDGE_COLUMNS.items():
            object.__setattr__(self, name, as_array(getattr(self, name), dtype, name))
        lengths = {name: len(getattr(self, name)) for name in EDGE_COLUMNS}
        if len(set(lengths.values())) > 1:
            raise GraphError(f"graph edge columns differ in length: {lengths}")
        finite = np.isfinite(self.weight)
        if not finite.all():
            raise GraphError(f"graph edge {int(np.argmin(finite))} has a weight that is not finite")
        t, u = self.target, self.source
        ascending = (t[1:] > t[:-1]) | ((t[1:] == t[:-1]) & (u[1:] > u[:-1]))
        if not ascending.all():
            raise GraphError(
                f"graph edge {int(np.argmin(ascending)) + 1} is out of order or repeated; sort by "
                "(target, source), for example with Edges.from_unsorted"
            )

    @classmethod
    def from_unsorted(cls, *, target: Any, source: Any, weight: Any) -> "Edges":
        """Edges given in any order; those of weight exactly 0 are left out."""
        order = np.lexsort((source, target))
        order = order[np.asarray(weight)[order] != 0]
        columns = {"target": target, "source": source, "weight": weight}
        return cls(**{name: np.asarray(column)[order] for name, column in columns.items()})

    def __len__(self) -> int:
        return len(self.target)

    def row_starts(self, n_nodes: int) -> Int64[np.ndarray, " N1"]:
        """Where the edges of each target begin, and at the end how many there are."""
        numbers = np.arange(n_nodes + 1, dtype=np.int32)  # another type would copy the edges
        return np.searchsorted(self.target, numbers)

    def select(self, keep: Bool[np.ndarray, " E"]) -> "Edges":
        """The edges where `keep` holds."""
        return Edges(**{name: getattr(self, name)[keep] for name in EDGE_COLUMNS})


EDGE_COLUMNS: dict[str, type[np.generic]] = {
    "target": np.int32,
    "source": np.int32,
    "weight": np.float32,
}
