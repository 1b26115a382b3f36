"""The settings of a synthetic ground truth."""

from dataclasses import dataclass
from typing import Literal

from pellucid.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruthConfig:
    """How features are made and when they are active.

    `trees` features are the roots of trees: each has `branching` children, to `depth` generations
    below the root. All other features stand alone. Roots and lone features are drawn independently
    at every token, with Zipf frequencies; below an active feature at most one child is active.
    The shape is that of SynthSAEBench-16k (Zipf exponent .5, branching 4), at a size that trains in
    seconds.

    Attributes:
        num_features: true features, F.
        width: of what is read.
        width_out: of what is written, where that is another site; by default `width`.
        kind: "sae": what is read is reconstructed; "transcoder": every feature reads one direction
            and writes another.
        trees: how many hierarchies.
        branching: children of a feature that has any.
        depth: generations below a root.
        child_share: with what probability an active feature that has children has an active one.
        zipf: the exponent s: the frequency of the r-th most frequent root or lone feature is
            proportional to r^-s, and a child's share of its parent to the same of its rank.
        l0: expected number of active features a token.
        spread: standard deviation of a feature's activation, whose mean is 1.
        noise: standard deviation of noise in each coordinate of what is read.
        seed: of the directions, the frequencies and the trees.

    Raises:
        ConfigError: a value out of range; trees that do not fit; a frequency above 1.
    """

    num_features: int = 1024
    width: int = 128
    width_out: int | None = None
    kind: Literal["sae", "transcoder"] = "sae"
    trees: int = 32
    branching: int = 4
    depth: int = 2
    child_share: float = 0.8
    zipf: float = 0.5
    l0: float = 5.0
    spread: float = 0.25
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("sae", "transcoder"):
            raise ConfigError(f"unknown kind {self.kind!r}; use sae or transcoder")
        if self.kind == "sae" and self.width_out not in (None, self.width):
            raise ConfigError(
                f"width_out is {self.width_out} but an SAE writes the width {self.width} that it "
                "reads; leave it out or use a transcoder"
            )
        for name in ("num_features", "width", "branching", "l0"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a positive number")
        for name in ("trees", "depth", "zipf", "spread", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or a positive number")
        if not 0 <= self.child_share <= 1:
            raise ConfigError(f"child_share is {self.child_share}; give a number from 0 to 1")
        if self.trees * self.tree_size > self.num_features:
            raise ConfigError(
                f"{self.trees} trees of {self.tree_size} features do not fit into num_features "
                f"{self.num_features}; take fewer or smaller trees"
            )

    @property
    def tree_size(self) -> int:
        """Features of one tree, its root included."""
        return sum(self.branching**generation for generation in range(self.depth + 1))

    @property
    def written(self) -> int:
        """Width of what is written."""
        return self.width_out or self.width
