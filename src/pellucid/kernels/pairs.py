"""Sparse codes regrouped by feature: the form in which the backward pass reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import SparseCodes


class RowGradients(NamedTuple):
    """Gradients of rows of an encoder and a decoder, a row a feature."""

    W_enc: Float[Tensor, "F d_in"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F d_out"]


@dataclass(frozen=True, slots=True)
class FeaturePairs:
    """Every active (token, feature) pair of a batch, sorted by feature.

    The pairs of feature f are those from `offsets[f]` to `offsets[f + 1]`.

    Attributes:
        values: the feature's activation, never 0.
        targets: the row of the output gradients that the pair wrote to.
        sources: the row of the inputs that it was encoded from.
        offsets: F + 1 positions, the last of which is P.
    """

    values: Float[Tensor, " P"]
    targets: Int[Tensor, " P"]
    sources: Int[Tensor, " P"]
    offsets: Int[Tensor, " F_plus_1"]

    def features(self) -> Int[Tensor, " P"]:
        """The feature of each pair."""
        counts = self.offsets.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def rows(self, start: int, stop: int) -> "FeaturePairs":
        """The pairs of features start..stop - 1, with offsets counted from the first of them."""
        offsets = self.offsets[start : stop + 1]
        pairs = slice(int(offsets[0]), int(offsets[-1]))
        return FeaturePairs(
            self.values[pairs], self.targets[pairs], self.sources[pairs], offsets - offsets[0]
        )


def pair_by_feature(codes: Sequence[SparseCodes]) -> FeaturePairs:
    """Regroup the codes of several reconstructions of the same N tokens.

    Row n of the i-th codes has source n (the token it was encoded from) and target i * N + n: the
    output gradients of the reconstructions are expected one below the other.
    """
    n_tokens, num_features = codes[0].values.shape[0], codes[0].num_features
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for i, part in enumerate(codes):
        rows, slots = part.values.nonzero(as_tuple=True)
        parts.append((part.indices[rows, slots], part.values[rows, slots], rows + i * n_tokens))
    features, values, targets = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = features.argsort(stable=True)
    targets = targets[order]
    ends = torch.bincount(features, minlength=num_features).cumsum(0)
    return FeaturePairs(
        values=values[order],
        targets=targets,
        sources=targets % n_tokens,
        offsets=torch.cat([ends.new_zeros(1), ends]),
    )
