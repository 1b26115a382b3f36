"""Grids of trainings, and which of them no other beats in sparsity and fidelity."""

from pellucid.training.sweep.front import Point, pareto_front, points
from pellucid.training.sweep.grid import Grid
from pellucid.training.sweep.rows import SweepRow
from pellucid.training.sweep.run import SweepProgress, SweepResult, sweep

__all__ = [
    "Grid",
    "Point",
    "SweepProgress",
    "SweepResult",
    "SweepRow",
    "pareto_front",
    "points",
    "sweep",
]
