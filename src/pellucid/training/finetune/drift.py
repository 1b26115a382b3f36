"""How far features moved: their directions, and the tokens at which they are active."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.base import Dictionary

CHANGED_BELOW = 0.5
"""A feature counts as changed when fewer than this share of its tokens, before or after, are tokens
of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over many features: its 5% quantile, median and mean."""

    low: float
    median: float
    mean: float

    @classmethod
    def of(cls, values: Float[Tensor, " n"]) -> "Spread":
        """The spread of at least one value; all 1 for none, as nothing moved."""
        values = values.double() if len(values) else torch.ones(1, dtype=torch.float64)
        low, median = torch.quantile(values, torch.tensor([0.05, 0.5], dtype=torch.float64))
        return cls(low=float(low), median=float(median), mean=float(values.mean()))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDrift:
    """How the features of one layer moved.

    Attributes:
        encoder_cosine: between a feature's encoder row before and after, over features alive then.
        decoder_cosine: the same of its decoder row (of a cross-layer transcoder, all slots).
        same_tokens: tokens at which it is active both before and after over tokens at which it is
            either (Jaccard), over features alive before or after.
        changed: share of those below `CHANGED_BELOW`.
        born: features active at some token after and at none before.
        died: the opposite.
    """

    encoder_cosine: Spread
    decoder_cosine: Spread
    same_tokens: Spread
    changed: float
    born: int
    died: int

    @classmethod
    def from_json(cls, record: dict) -> "LayerDrift":
        """The inverse of `dataclasses.asdict`."""
        spreads = ("encoder_cosine", "decoder_cosine", "same_tokens")
        return cls(**record | {name: Spread(**record[name]) for name in spreads})


class DriftMeter:
    """Counts, over batches of tokens, where each feature of a layer is active before and after.

    Args:
        before: the dictionary as it was.
        after: the same features, trained.
    """

    def __init__(self, before: Dictionary, after: Dictionary) -> None:
        self._dictionaries = before, after
        counts = torch.zeros(3, before.num_features, dtype=torch.int64)
        self._before, self._after, self._both = counts

    def add(self, before: SparseCodes, after: SparseCodes) -> None:
        """Take in the codes of the same tokens."""
        then, now = _active_pairs(before), _active_pairs(after)
        both = now[torch.isin(now, then, assume_unique=True)]
        for counts, pairs in ((self._before, then), (self._after, now), (self._both, both)):
            counts += torch.bincount(pairs % before.num_features, minlength=len(counts))

    def result(self) -> LayerDrift:
        """The drift over all tokens taken in."""
        before, after = self._dictionaries
        lived, lives = self._before > 0, self._after > 0
        either = lived | lives
        jaccard = self._both / (self._before + self._after - self._both).clamp_min(1)
        alive = lived.to(before.W_enc.device)
        return LayerDrift(
            encoder_cosine=Spread.of(_cosines(before.W_enc, after.W_enc)[alive]),
            decoder_cosine=Spread.of(_cosines(before.W_dec, after.W_dec)[alive]),
            same_tokens=Spread.of(jaccard[either]),
            changed=float((jaccard[either] < CHANGED_BELOW).double().mean())
            if either.any()
            else 0.0,
            born=int((lives & ~lived).sum()),
            died=int((lived & ~lives).sum()),
        )


def _active_pairs(codes: SparseCodes) -> Int[Tensor, " P"]:
    """Every active (token, feature) pair as one number: token * F + feature."""
    tokens, slots = codes.values.nonzero(as_tuple=True)
    return (tokens * codes.num_features + codes.indices[tokens, slots]).cpu()


def _cosines(before: Tensor, after: Tensor) -> Float[Tensor, " F"]:
    return cosine_similarity(before.flatten(1), after.flatten(1), dim=1)
