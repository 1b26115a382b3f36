"""True features: what they read and write, and samples of activations they make."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.core.types import Site, SparseCodes
from pellucid.evaluation.ground_truth.config import GroundTruthConfig
from pellucid.evaluation.ground_truth.hierarchy import Active, Hierarchy
from pellucid.kernels.dispatch import decode

LEAST_ACTIVATION = 0.1
"""No active feature is weaker than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """N tokens of a ground truth.

    Attributes:
        x: what a dictionary reads.
        y: what it should write; x itself for an SAE.
        codes: the true features' activations.
    """

    x: Float[Tensor, "N d_in"]
    y: Float[Tensor, "N d_out"]
    codes: SparseCodes

    @property
    def firing(self) -> Bool[Tensor, "N F"]:
        """Whether each true feature is active at each token."""
        return self.codes.dense() > 0


@final
class GroundTruth:
    """Features with known directions, activations and hierarchy.

    With codes a, what is read is x = sum_i a_i read_i (+ noise). Where a transcoder is asked for,
    what it should write is y = sum_i a_i write_i: the true map takes read_i to write_i. Directions
    are independent random unit vectors, so those of a child and of its parent are unrelated.

    Args:
        config: see `GroundTruthConfig`.

    Attributes:
        config: as given.
        hierarchy: trees and frequencies.
        read: directions at the site that is read, unit rows.
        write: directions at the site that is written; the same for an SAE.

    Raises:
        ConfigError: see `Hierarchy.draw`.
    """

    def __init__(self, config: GroundTruthConfig | None = None) -> None:
        self.config = config = config or GroundTruthConfig()
        generator = torch.Generator().manual_seed(config.seed)
        self.hierarchy = Hierarchy.draw(config, generator)

        def directions(width: int) -> Float[Tensor, "F d"]:
            return normalize(torch.randn(config.num_features, width, generator=generator), dim=1)

        self.read: Float[Tensor, "F d_in"] = directions(config.width)
        self.write: Float[Tensor, "F d_out"] = (
            self.read if config.kind == "sae" else directions(config.written)
        )

    @property
    def read_site(self) -> Site:
        """The site that samples of x stand at."""
        return Site("resid_post" if self.config.kind == "sae" else "mlp_in", 0)

    @property
    def write_site(self) -> Site:
        """The site that samples of y stand at."""
        return Site("resid_post" if self.config.kind == "sae" else "mlp_out", 0)

    def sample(self, tokens: int, generator: torch.Generator) -> Sample:
        """Draw tokens independently.

        Args:
            tokens: how many, N.
            generator: a CPU generator, which decides everything.
        """
        codes = self._codes(self.hierarchy.sample(tokens, generator), tokens, generator)
        x = y = decode(codes.values, codes.indices, self.read)
        if self.config.kind == "transcoder":
            y = decode(codes.values, codes.indices, self.write)
        if self.config.noise:
            noisy = x + self.config.noise * torch.randn(x.shape, generator=generator)
            x, y = noisy, noisy if self.config.kind == "sae" else y
        return Sample(x=x, y=y, codes=codes)

    def _codes(self, active: Active, tokens: int, generator: torch.Generator) -> SparseCodes:
        """Pack active pairs into one row a token, each with an activation of its own."""
        order = active.tokens.argsort(stable=True)
        token, feature = active.tokens[order], active.features[order]
        counts = torch.bincount(token, minlength=tokens)
        column = torch.arange(len(token)) - (counts.cumsum(0) - counts)[token]
        drawn = 1 + self.config.spread * torch.randn(len(token), generator=generator)
        width = max(1, int(counts.max()))
        values, indices = torch.zeros(tokens, width), torch.zeros(tokens, width, dtype=torch.int64)
        values[token, column] = drawn.clamp_min(LEAST_ACTIVATION)
        indices[token, column] = feature
        return SparseCodes(values, indices, self.config.num_features)
