"""A sum of decision trees as flat arrays: evaluated, explained and checked here.

scikit-learn grows the trees; nothing of it is needed to use them. Suffixes: N steps, C columns, T
trees, M nodes of all trees, one tree after another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float64, Int64

LEAF = -1
_BLOCK = 4096
Level = tuple[slice, Int64[np.ndarray, "n T"], Int64[np.ndarray, "n T"]]
"""Rows, the node of each in every tree, and the node after it (itself at a leaf)."""


class Tree(NamedTuple):
    """One tree as its library gives it; children are numbers of its own nodes.

    Attributes:
        feature: the column that a node asks for, `LEAF` for leaves.
        threshold: at most this goes left.
        left: the node for that.
        right: the other.
        value: of leaves.
        cover: how much training weight came by.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    cover: np.ndarray


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trees:
    """The sum of a constant and the leaves that a step falls into.

    Attributes:
        constant: added to the leaves.
        columns: how many columns the steps must have.
        single: whether readings are rounded to float32 before they are compared, as some libraries
            do when they grow trees.
        roots: the first node of every tree.
        feature: as in `Tree`, for the nodes of all trees.
        threshold: as in `Tree`.
        left: numbers among the nodes of all trees.
        right: likewise.
        value: of leaves; of other nodes the mean of the leaves below, by training weight.
    """

    constant: float
    columns: int
    single: bool
    roots: Int64[np.ndarray, " T"]
    feature: Int64[np.ndarray, " M"]
    threshold: Float64[np.ndarray, " M"]
    left: Int64[np.ndarray, " M"]
    right: Int64[np.ndarray, " M"]
    value: Float64[np.ndarray, " M"]

    def __post_init__(self) -> None:
        nodes, inner = len(self.feature), np.flatnonzero(self.feature != LEAF)
        below = np.concatenate([self.left[inner], self.right[inner]])
        above = np.concatenate([inner, inner])
        sizes = {len(part) for part in (self.threshold, self.left, self.right, self.value)}
        numbers = (self.threshold[inner], self.value, np.array([self.constant]))
        if not (
            sizes == {nodes}
            and (self.feature >= LEAF).all()
            and (self.feature < self.columns).all()
            and (below > above).all()  # children follow their parent: no way round in circles
            and (below < nodes).all()
            and (self.roots >= 0).all()
            and (self.roots < nodes).all()
            and all(np.isfinite(part).all() for part in numbers)
        ):
            raise ValueError("the arrays do not form trees")

    @classmethod
    def of(cls, trees: Sequence[Tree], *, constant: float, columns: int, single: bool) -> "Trees":
        """Several trees as one set of arrays.

        Args:
            trees: as their library gives them, each with its root first.
            constant: added to their sum.
            columns: how many columns they were grown on.
            single: whether readings are rounded to float32 before they are compared.
        """
        sizes = [len(tree.feature) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        inner = [tree.feature != LEAF for tree in trees]

        def joined(name: str, shift: bool = False) -> np.ndarray:
            parts = [
                np.where(asks, getattr(tree, name) + (root if shift else 0), 0)
                for tree, asks, root in zip(trees, inner, roots, strict=True)
            ]
            return np.concatenate(parts)

        return cls(
            constant=float(constant),
            columns=columns,
            single=single,
            roots=roots.astype(np.int64),
            feature=np.concatenate([tree.feature for tree in trees]).astype(np.int64),
            threshold=joined("threshold").astype(np.float64),
            left=joined("left", shift=True).astype(np.int64),
            right=joined("right", shift=True).astype(np.int64),
            value=np.concatenate([_means(tree) for tree in trees]),
        )

    @property
    def base(self) -> float:
        """The constant and the mean value of every tree over its training steps."""
        return float(self.constant + self.value[self.roots].sum())

    def __call__(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, " N"]:
        """The sum for every step.

        Args:
            x: readings, finite.
        """
        found = np.empty(len(x))
        for rows, _, after in self._walk(x):
            found[rows] = self.constant + self.value[after].sum(1)
        return found

    def contributions(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, "N C"]:
        """What each column added on the way from the roots to a step's leaves (Saabas 2014).

        At every node the change of the mean value below goes to the column that was asked for.
        They sum to the margin less `base`. A column that another stands in for gets less than its
        due: this says what the trees used, not what they could have used.

        Args:
            x: readings, finite.
        """
        found = np.zeros((len(x), self.columns))
        for rows, before, after in self._walk(x):
            asked = np.maximum(self.feature[before], 0)
            cell = asked + self.columns * np.arange(len(before))[:, None]
            gain = self.value[after] - self.value[before]
            size = len(before) * self.columns
            added = np.bincount(cell.ravel(), gain.ravel(), minlength=size)
            found[rows] += added.reshape(-1, self.columns)
        return found

    def _walk(self, x: Float64[np.ndarray, "N C"]) -> Iterator[Level]:
        """All steps one level down at a time, in blocks; a block ends when all are at leaves."""
        if x.shape[1] != self.columns:
            raise ValueError(f"the trees read {self.columns} columns, not {x.shape[1]}")
        x = x.astype(np.float32) if self.single else x
        for first in range(0, len(x), _BLOCK):
            rows = slice(first, first + _BLOCK)
            here = x[rows]
            across = np.arange(len(here))[:, None]
            node = np.repeat(self.roots[None], len(here), axis=0)
            while True:
                asked = self.feature[node]
                goes_left = here[across, np.maximum(asked, 0)] <= self.threshold[node]
                child = np.where(goes_left, self.left[node], self.right[node])
                after = np.where(asked == LEAF, node, child)
                yield rows, node, after
                if (self.feature[after] == LEAF).all():
                    break
                node = after

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""
        numbers = {name: getattr(self, name) for name in _ARRAYS}
        return numbers | {
            "constant": np.array([self.constant], dtype=np.float64),
            "shape": np.array([self.columns, int(self.single)], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Trees":
        """What `arrays` gave, as trees again.

        Args:
            arrays: by name.

        Raises:
            ValueError: they do not form trees.
            KeyError: one is missing.
        """
        columns, single = arrays["shape"].tolist()
        return cls(
            constant=arrays["constant"].item(),
            columns=columns,
            single=bool(single),
            **{name: arrays[name] for name in _ARRAYS},
        )


_ARRAYS = ("roots", "feature", "threshold", "left", "right", "value")


def _means(tree: Tree) -> Float64[np.ndarray, " nodes"]:
    """The value of leaves, and for other nodes the mean below by cover; children come later."""
    value = np.where(tree.feature == LEAF, tree.value, 0.0).astype(np.float64)
    for node in np.flatnonzero(tree.feature != LEAF)[::-1]:
        pair = [tree.left[node], tree.right[node]]
        value[node] = tree.cover[pair] @ value[pair] / tree.cover[pair].sum()
    return value
