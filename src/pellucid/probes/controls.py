"""What a probe's figure must be held against: shuffled labels and random directions.

A probe that separates shuffled labels in training has learned by heart (the control task of Hewitt
and Liang 2019); on held-out groups it must fall to .5. A random direction shows how much of the
separation any direction would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.probes.fit import Labels, Line, Matrix, Method, fit, logistic, mean_difference
from pellucid.probes.metrics import Estimate, auroc, estimate

SHUFFLES = 5
DIRECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A probe on held-out groups beside its controls.

    Attributes:
        line: the probe.
        auroc: on the held-out rows, with its interval.
        shuffled: mean held-out AUROC of probes fitted to shuffled labels, on shuffled labels.
        shuffled_in_training: the same on their own training rows: how much is learned by heart.
        random: mean held-out AUROC of random directions, each turned the better way round on the
            training rows.
    """

    line: Line
    auroc: Estimate
    shuffled: float
    shuffled_in_training: float
    random: float

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON-able record."""
        return self.auroc.to_json() | {
            "auroc": self.auroc.value,
            "shuffled": self.shuffled,
            "shuffled_in_training": self.shuffled_in_training,
            "random": self.random,
            "penalty": self.line.penalty,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one side of a split: activations, labels and groups."""

    x: Matrix
    labels: Labels
    groups: Sequence[str]


def scored(
    train: Part,
    test: Part,
    *,
    method: Method = "logistic",
    line: Line | None = None,
    seed: int = 0,
) -> Scored:
    """Fit a probe on one part and measure it, and its controls, on another.

    Args:
        train: what it is fitted on.
        test: what it is measured on, without a group of `train`.
        method: `logistic` or `mean_difference`.
        line: the probe, if it has been fitted on `train` already.
        seed: of folds, shuffles, directions and resamples.

    Raises:
        DataError: one class only, values that are not finite, or groups that cannot be split.
    """
    if line is None:
        line = fit(train.x, train.labels, train.groups, method=method, seed=seed)
    rng = np.random.default_rng(seed)
    shuffled, by_heart = _shuffled(train, test, line, method, rng)
    return Scored(
        line=line,
        auroc=estimate(auroc, line(test.x), test.labels, test.groups, seed=seed),
        shuffled=shuffled,
        shuffled_in_training=by_heart,
        random=_random(train, test, rng),
    )


def _shuffled(
    train: Part, test: Part, line: Line, method: Method, rng: np.random.Generator
) -> tuple[float, float]:
    held_out, by_heart = [], []
    for _ in range(SHUFFLES):
        labels, truth = rng.permutation(train.labels), rng.permutation(test.labels)
        control = (
            mean_difference(train.x, labels)
            if method == "mean_difference"
            else logistic(train.x, labels, line.penalty)
        )
        held_out.append(auroc(control(test.x), truth))
        by_heart.append(auroc(control(train.x), labels))
    return float(np.mean(held_out)), float(np.mean(by_heart))


def _random(train: Part, test: Part, rng: np.random.Generator) -> float:
    spread = train.x.std(0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    directions = rng.standard_normal((train.x.shape[1], DIRECTIONS)) * scale[:, None]
    found = []
    for direction in directions.T:
        sign = 1.0 if auroc(train.x @ direction, train.labels) >= 0.5 else -1.0
        found.append(auroc(sign * (test.x @ direction), test.labels))
    return float(np.mean(found))
