"""Keeping a trace within a memory budget: what it will need, and the chunk sizes that fit.

What cannot be made smaller is checked before it is computed: the recorded run, the vectors of the
active sources, and the rows. What can be is chosen: rows a chunk, whether the first attention is
multiplied out, whether decoder rows of a cross-layer transcoder are kept.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pellucid.attribution.sweep import CHUNK_TOKENS
from pellucid.core.errors import ConfigError
from pellucid.models.model import LanguageModel

MEBIBYTE = 1 << 20
BUFFERS = 5
"""Tensors of a chunk's size that a sweep holds at once: gradients, values, mixtures, copies."""
CHUNK_SHARE = 4
"""A chunk may take one part in this many of what is left."""
SMALLEST_CHUNK = 64


@dataclass(slots=True)
class MemoryBudget:
    """Bytes that the whole process may hold; None for no limit.

    Raises:
        ConfigError: a limit that is not positive.
    """

    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise ConfigError(f"max_memory is {self.limit}; give a positive number of bytes")

    def left(self) -> float:
        """Bytes that are still free."""
        return float("inf") if self.limit is None else self.limit - resident_bytes()

    def check_run(self, model: LanguageModel, n_positions: int, n_heads: int) -> None:
        """Refuse a prompt whose recorded run does not fit, before it is run.

        Raises:
            ConfigError: it does not fit; the message says how much would.
        """
        patterns = 2 * model.n_layers * n_heads * n_positions**2
        residuals = 8 * model.n_layers * n_positions * model.d_model
        logits = 3 * n_positions * model.vocab_size
        self._require(4 * (patterns + residuals + logits), f"a prompt of {n_positions} tokens")

    def check_rows(self, n_rows: int, n_columns: int) -> None:
        """Refuse rows that do not fit, before any is computed.

        Raises:
            ConfigError: they do not fit; the message says how many would.
        """
        row = 4 * n_columns
        fit = max(0, int(self.left() * (1 - 1 / CHUNK_SHARE) / row)) if self.limit else n_rows
        if n_rows > fit:
            self._refuse(n_rows * row, f"{n_rows} rows; lower max_features to {fit}, or")

    def chunk_tokens(self, width: int) -> int:
        """Rows times positions of a chunk."""
        if self.limit is None:
            return CHUNK_TOKENS
        fit = int(self.left() / CHUNK_SHARE / (4 * BUFFERS * width))
        return max(SMALLEST_CHUNK, min(CHUNK_TOKENS, fit))

    def can_keep(self, n_bytes: int) -> bool:
        """Whether something that could also be computed again may be kept."""
        return n_bytes <= self.left() / CHUNK_SHARE

    def _require(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.left():
            self._refuse(n_bytes, f"{what};")

    def _refuse(self, n_bytes: int, what: str) -> None:
        limit, left = (int(n) // MEBIBYTE for n in (self.limit or 0, max(0, self.left())))
        raise ConfigError(
            f"max_memory is {limit} MiB, of which {left} are free; {n_bytes // MEBIBYTE} are "
            f"needed for {what} raise max_memory"
        )


def resident_bytes() -> int:
    """Memory this process holds now, in bytes; 0 where the system does not say."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found.group(1)) if found else 0


def parse_bytes(text: str) -> int:
    """Read an amount of memory such as `8GiB`, `500MB` or `2e9`.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    try:
        if found is None:
            raise ValueError(text)
        number, unit, binary = found.groups()
        return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))
    except ValueError:
        raise ConfigError(f"{text!r} is not an amount of memory; write it like 8GiB") from None
