"""The Pareto front of a sweep: what nothing else beats in both L0 and fidelity."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Literal

from pellucid.training.sweep.rows import SweepRow

Measure = Literal["fvu", "kl"]
MEASURES: tuple[Measure, ...] = ("fvu", "kl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One setting over its seeds.

    Attributes:
        names: of its trainings.
        kind: setting.
        activation: setting.
        features: setting.
        k: setting.
        sparsity: setting.
        learning_rate: setting.
        l0: mean over seeds.
        value: mean of the measure over seeds.
        l0_range: smallest and largest L0.
        value_range: smallest and largest value.
    """

    names: tuple[str, ...]
    kind: str
    activation: str
    features: int
    k: int
    sparsity: float | None = None
    learning_rate: float | None = None
    l0: float
    value: float
    l0_range: tuple[float, float]
    value_range: tuple[float, float]


def points(rows: Sequence[SweepRow], target: str, measure: Measure) -> list[Point]:
    """The settings with this target, seeds averaged; empty where the measure was not taken."""

    def setting(row: SweepRow) -> tuple[str, str, int, int, float, float]:
        rates = (row.sparsity or 0.0, row.learning_rate or 0.0)  # None is the default, 0 none is
        return (row.kind, row.activation, row.features, row.k, *rates)

    kept = [row for row in rows if row.target == target and getattr(row, measure) is not None]
    found = []
    for _, group in groupby(sorted(kept, key=setting), key=setting):
        seeds = list(group)
        first = seeds[0]
        l0 = [row.l0 for row in seeds]
        values = [getattr(row, measure) for row in seeds]
        found.append(
            Point(
                names=tuple(row.name for row in seeds),
                kind=first.kind,
                activation=first.activation,
                features=first.features,
                k=first.k,
                sparsity=first.sparsity,
                learning_rate=first.learning_rate,
                l0=fmean(l0),
                value=fmean(values),
                l0_range=(min(l0), max(l0)),
                value_range=(min(values), max(values)),
            )
        )
    return found


def pareto_front(found: Sequence[Point]) -> list[Point]:
    """The points that no other beats, by rising L0.

    One point beats another if neither its L0 nor its value is higher, and one of them is lower.
    """
    front: list[Point] = []
    for point in sorted(found, key=lambda each: (each.l0, each.value)):
        best = front[-1] if front else None
        if (
            best is None
            or point.value < best.value
            or (point.l0, point.value)
            == (
                best.l0,
                best.value,
            )
        ):
            front.append(point)
    return front
