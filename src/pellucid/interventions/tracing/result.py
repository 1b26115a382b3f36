"""What a sweep found: one effect a place and token, beside its controls."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from pellucid.core.pictures import save_picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepResult:
    """Effects of patches, a row a place and a column a token.

    An effect is how much of the gap between the two prompts' metrics the patch crosses: 0 nothing,
    1 all of it.

    Attributes:
        title: what was done, for readers.
        places: names of the rows, in order of depth.
        positions: of the columns.
        tokens: texts of the patched prompt's tokens at `positions`.
        donor_tokens: texts of the other prompt's tokens there.
        effect: `[places, positions]`.
        noise: the same with random changes of the same size instead, the mean over draws; None
            where there is no such control.
        same: the same with patches from a third prompt whose answer is that of the patched one.
        relative_change: size of each patch, |new - old| / |old|.
        low, high: ends of 95% intervals of `effect`; None where there was one run.
        settings: what else identifies the run (JSON-able).
        note: what a reader should know, such as a slower way taken; "" for nothing.
    """

    title: str
    places: list[str]
    positions: list[int]
    tokens: list[str]
    donor_tokens: list[str]
    effect: Float64[np.ndarray, "R P"]
    noise: Float64[np.ndarray, "R P"] | None
    same: Float64[np.ndarray, "R P"] | None
    relative_change: Float64[np.ndarray, "R P"]
    settings: dict[str, Any]
    low: Float64[np.ndarray, "R P"] | None = None
    high: Float64[np.ndarray, "R P"] | None = None
    note: str = ""

    @property
    def best(self) -> tuple[int, int]:
        """Row and column of the largest effect."""
        row, column = np.unravel_index(np.nanargmax(self.effect), self.effect.shape)
        return int(row), int(column)

    def strongest(self, count: int = 5) -> list[dict[str, Any]]:
        """The largest effects of patches that changed anything, each beside its controls."""
        size = np.where(self.relative_change > 0, np.abs(self.effect), -1.0)
        order = np.argsort(-size, axis=None, kind="stable")
        order = order[: min(count, int((size >= 0).sum()))]
        cells = (np.unravel_index(index, self.effect.shape) for index in order)
        return [self.cell(int(row), int(column)) for row, column in cells]

    def cell(self, row: int, column: int) -> dict[str, Any]:
        """One effect beside its controls."""
        return {
            "site": self.places[row],
            "position": self.positions[column],
            "token": self.tokens[column],
            "effect": float(self.effect[row, column]),
            "low": None if self.low is None else float(self.low[row, column]),
            "high": None if self.high is None else float(self.high[row, column]),
            "noise": None if self.noise is None else float(self.noise[row, column]),
            "same_answer": None if self.same is None else float(self.same[row, column]),
            "other_positions": self._elsewhere(row, column),
        }

    def _elsewhere(self, row: int, column: int) -> float | None:
        """The mean effect at the row's other positions: what a random position would give."""
        others = np.delete(self.effect[row], column)
        return float(others.mean()) if len(others) else None

    def receipt(self) -> dict[str, Any]:
        """How many tokens were edited where, and by how much."""
        edited = self.relative_change > 0
        return {
            "sites": [
                {"site": place, "tokens_edited": int(row.sum())}
                for place, row in zip(self.places, edited, strict=True)
                if row.any()
            ],
            "tokens_edited": int(edited.sum()),
            "mean_relative_norm": float(self.relative_change[edited].mean()) if edited.any() else 0,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "title": self.title,
            "settings": self.settings,
            "places": self.places,
            "positions": self.positions,
            "tokens": self.tokens,
            "donor_tokens": self.donor_tokens,
            "effect": self.effect.tolist(),
            "low": None if self.low is None else self.low.tolist(),
            "high": None if self.high is None else self.high.tolist(),
            "controls": {
                "noise": None if self.noise is None else self.noise.tolist(),
                "same_answer": None if self.same is None else self.same.tolist(),
            },
            "strongest": self.strongest(),
            "note": self.note,
        }

    def save(self, path: Path) -> Path:
        """Draw a heat map, its controls beside it.

        Args:
            path: ends in .png or .svg.

        Raises:
            ConfigError: it ends in something else.
            StorageError: it cannot be written.
        """
        from pellucid.interventions.tracing.draw import heat_map

        panels = {"effect": self.effect}
        if self.noise is not None:
            panels["control: noise of the same size"] = self.noise
        if self.same is not None:
            panels["control: donor with the same answer"] = self.same
        labels = [
            a if a == b else f"{a} < {b}"
            for a, b in zip(self.tokens, self.donor_tokens, strict=True)
        ]
        return save_picture(heat_map(self.title, panels, self.places, labels), Path(path))
