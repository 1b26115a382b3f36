"""What a report page is made of: sections with text, tables and plots, all plain data.

The page's script draws them; every text is set as text, never as HTML.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pellucid.graphs.trust import MODERATE, STRONG, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the summary: what was checked, what came out, and beside which control."""

    heading: str
    value: str
    control: str
    text: str
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under column names; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Predicted (x) against measured (y), on equal axes.

    `control` marks points that should show no agreement.
    """

    title: str
    note: str
    points: tuple[tuple[float, float], ...]
    control: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One figure of a `Forest`: its value, interval and chance level, None where unknown."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    null: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Figures with intervals on one axis from `start` to 1."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    start: Literal[0, -1] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report; `checks` go into the summary too."""

    title: str
    text: str
    checks: tuple[Check, ...] = ()
    tables: tuple[Table, ...] = ()
    scatters: tuple[Scatter, ...] = ()
    forests: tuple[Forest, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The section as JSON-able data."""
        return asdict(self)


def correlation(record: dict[str, Any], name: str) -> str:
    """`spearman_NAME` of a causal record with its interval, as text."""
    value, interval = record.get(f"spearman_{name}"), record.get(f"spearman_{name}_interval")
    return with_interval(value, *(interval or (None, None)))


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval, as text."""
    if value is None:
        return "unknown"
    return f"{value:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def small(value: float | None) -> str:
    """An error as text."""
    return "n/a" if value is None else f"{value:.0e}"


def percent(value: float | None) -> str:
    """A share as text."""
    return "unknown" if value is None or not np.isfinite(value) else f"{100 * value:.0f}%"


def level_of(value: float | None, control: float | None = 0.0) -> Level:
    """How a correlation or share is judged; at most "poor" where it is not above its control."""
    if value is None or control is None:
        return "unknown"
    if value <= abs(control):
        return "poor"
    return "good" if value >= STRONG else "fair" if value >= MODERATE else "poor"


def points(rows: list[dict[str, Any]], x: str, y: str) -> tuple[tuple[float, float], ...]:
    """Pairs of two entries of causal rows, each divided by the row's `value` if it has one."""
    pairs = []
    for row in rows:
        unit = row.get("value") or 1.0
        if row.get(x) is not None and row.get(y) is not None:
            pairs.append((_short(row[x] / unit), _short(row[y] / unit)))
    return tuple(pairs)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
