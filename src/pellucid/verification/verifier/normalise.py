"""Each reading relative to right steps: of the same length and the same domain, where asked for.

What is usual differs between domains and between short and long steps; how unusual a step is among
right ones travels better. A value becomes (value - median) / (1.4826 MAD) of right steps, clipped.
Where more than half of the right steps agree (MAD 0) their standard deviation is taken, where all
agree 1.

Suffixes: N steps, C columns, D domains (the first is all of them together), L bins of length.
"""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pellucid.verification.verifier.examples import Examples

CLIP = 10.0
LENGTH_BINS = 4
FEWEST = 20
"""Right steps that a domain's bin of length must have to count on its own."""
_MAD_OF_NORMAL = 1.4826


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalise:
    """Statistics of right steps.

    Attributes:
        domains: names of the domains; the first, '', is all of them together and serves any other.
        edges: numbers of tokens at which the bins of length meet.
        center: the median.
        spread: what a difference is divided by.
    """

    domains: tuple[str, ...]
    edges: Float64[np.ndarray, " L-1"]
    center: Float64[np.ndarray, "D L C"]
    spread: Float64[np.ndarray, "D L C"]

    def __post_init__(self) -> None:
        shape = (len(self.domains), len(self.edges) + 1)
        if not (
            self.center.shape[:2] == shape
            and self.center.shape == self.spread.shape
            and np.isfinite(self.center).all()
            and (self.spread > 0).all()
        ):
            raise ValueError("the arrays do not form a normaliser")

    @classmethod
    def fit(cls, examples: Examples, *, by_length: bool = False) -> "Normalise":
        """Statistics of the right steps of each domain.

        Args:
            examples: training steps.
            by_length: apart for `LENGTH_BINS` bins of length (quantiles of right steps); a bin with
                fewer than `FEWEST` right steps of a domain takes the whole domain's statistics.
        """
        tokens = examples.tokens[~examples.wrong]
        shares = np.linspace(0, 1, (LENGTH_BINS if by_length else 1) + 1)[1:-1]
        edges = np.unique(np.quantile(tokens, shares))
        names = ("", *sorted(set(examples.domains.tolist()) - {""}))
        tables = [
            _table(examples, edges, (examples.domains == name) | (name == ""), ~examples.wrong)
            for name in names
        ]
        center, spread = (np.stack(part) for part in zip(*tables, strict=True))
        return cls(domains=names, edges=edges, center=center, spread=spread)

    def adapted(self, examples: Examples) -> "Normalise":
        """The same for another domain, with the statistics of its unlabelled steps.

        Medians of all steps stand in for those of right ones; they differ little while most are
        right. The labels are not read. The domains of `examples` are replaced or added, and where
        domains are not told apart the new statistics serve every step.

        Args:
            examples: steps of the domain.
        """
        anyone = np.ones(len(examples), dtype=bool)
        center, spread, names = list(self.center), list(self.spread), list(self.domains)
        for name in sorted(set(examples.domains.tolist())):
            table = _table(examples, self.edges, examples.domains == name, anyone)
            if name not in names:
                names.append(name)
                center.append(table[0])
                spread.append(table[1])
            else:
                center[names.index(name)], spread[names.index(name)] = table
        return replace(self, domains=tuple(names), center=np.stack(center), spread=np.stack(spread))

    def __call__(
        self,
        x: Float64[np.ndarray, "N C"],
        tokens: Float64[np.ndarray, " N"],
        domains: np.ndarray,
    ) -> Float64[np.ndarray, "N C"]:
        """The readings, normalised.

        Args:
            x: as they were collected.
            tokens: how long each step is.
            domains: of each step.
        """
        place = {name: number for number, name in enumerate(self.domains)}
        row = np.array([place.get(name, 0) for name in domains.tolist()], dtype=np.int64)
        bin_of = _bin(self.edges, tokens)
        return np.clip((x - self.center[row, bin_of]) / self.spread[row, bin_of], -CLIP, CLIP)


Table = tuple[Float64[np.ndarray, "L C"], Float64[np.ndarray, "L C"]]


def _bin(edges: Float64[np.ndarray, " L-1"], tokens: np.ndarray) -> Int64[np.ndarray, " N"]:
    return np.searchsorted(edges, tokens, side="right")


def _table(
    examples: Examples,
    edges: Float64[np.ndarray, " L-1"],
    domain: Bool[np.ndarray, " N"],
    used: Bool[np.ndarray, " N"],
) -> Table:
    """Median and spread of a domain in every bin of length."""
    if (domain & used).sum() < FEWEST:
        domain = np.ones(len(examples), dtype=bool)
    whole = _robust(examples.x[domain & used], examples.weights[domain & used])
    bins, tables = _bin(edges, examples.tokens), []
    for number in range(len(edges) + 1):
        rows = domain & used & (bins == number)
        enough = rows.sum() >= FEWEST
        tables.append(_robust(examples.x[rows], examples.weights[rows]) if enough else whole)
    center, spread = zip(*tables, strict=True)
    return np.stack(center), np.stack(spread)


def _robust(
    x: Float64[np.ndarray, "n C"], weights: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    center = _median(x, weights)
    spread = _MAD_OF_NORMAL * _median(np.abs(x - center), weights)
    mean = weights @ x / weights.sum()
    deviation = np.sqrt(weights @ (x - mean) ** 2 / weights.sum())
    flat = spread <= 1e-9 * (1 + np.abs(center))
    spread = np.where(flat, deviation, spread)
    return center, np.where(spread <= 1e-9 * (1 + np.abs(center)), 1.0, spread)


def _median(
    x: Float64[np.ndarray, "n C"], weights: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " C"]:
    """The smallest value at which half of the weight is reached, by column."""
    order = np.argsort(x, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= weights.sum() / 2 * (1 - 1e-12)
    place = np.argmax(reached, axis=0)
    return np.take_along_axis(x, np.take_along_axis(order, place[None], axis=0), axis=0)[0]
