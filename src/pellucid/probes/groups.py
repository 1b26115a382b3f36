"""Splits that keep each group whole: what a probe is tested on shares no group with its training.

A group is whatever must not be learned by heart: a template, an object, a source document.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from pellucid.core.errors import DataError

Folds = list[tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]]


def split(
    labels: Bool[np.ndarray, " N"],
    groups: Sequence[str],
    *,
    test_share: float = 0.3,
    seed: int = 0,
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Rows of a training and a test part without a group in both, both classes in both.

    Args:
        labels: the two classes.
        groups: each row's group.
        test_share: about which share of the rows is tested on.
        seed: of the assignment.

    Raises:
        DataError: the groups do not allow it.
    """
    count = max(2, round(1 / test_share))
    return folds(labels, groups, count=count, seed=seed)[0]


def folds(
    labels: Bool[np.ndarray, " N"], groups: Sequence[str], *, count: int = 4, seed: int = 0
) -> Folds:
    """Folds that never cut a group, each with both classes in training and in test.

    Groups are dealt out in random order, each to the fold that has the fewest rows of the group's
    rarer label so far.

    Args:
        labels: the two classes.
        groups: each row's group.
        count: how many folds, fewer if the groups do not fill them.
        seed: of the order.

    Raises:
        DataError: one class only, lengths that differ, or groups that cannot be split with both
            classes on both sides.
    """
    labels, names = check_classes(labels), np.asarray(groups)
    if len(names) != len(labels):
        raise DataError(
            f"there are {len(names)} groups for {len(labels)} rows; give every row one group"
        )
    kinds, member = np.unique(names, return_inverse=True)
    member = member.reshape(-1)
    sizes = np.stack([np.bincount(member[labels == side], minlength=len(kinds)) for side in (0, 1)])
    for number in range(min(count, len(kinds)), 1, -1):
        fold = _dealt(sizes, number, seed)[member]
        parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(number)]
        if all(len(np.unique(labels[rows])) == 2 for part in parts for rows in part):
            return parts
    raise DataError(
        f"{len(kinds)} groups cannot be split so that both classes are in training and in test; "
        "give more groups, or groups that are not the labels themselves"
    )


def check_classes(labels: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """The labels as booleans, both classes present.

    Raises:
        DataError: only one class.
    """
    labels = np.asarray(labels).astype(bool)
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise DataError(
            f"{positives} of {len(labels)} examples are positive; a probe needs both classes"
        )
    return labels


def _dealt(
    sizes: Int64[np.ndarray, "2 groups"], number: int, seed: int
) -> Int64[np.ndarray, " groups"]:
    """The fold of each group."""
    total = np.maximum(sizes.sum(1, keepdims=True), 1)
    shares = sizes / total
    order = np.random.default_rng(seed).permutation(sizes.shape[1])
    order = order[np.argsort(-shares[:, order].max(0), kind="stable")]
    held = np.zeros((2, number))
    fold = np.zeros(sizes.shape[1], dtype=np.int64)
    for group in order:
        # The fold whose larger class share grows least: keeps both classes spread.
        grown = ((held + shares[:, group, None]) ** 2 - held**2).sum(0)
        fold[group] = int(np.argmin(grown))
        held[:, fold[group]] += shares[:, group]
    return fold
