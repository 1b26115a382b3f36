"""Which features are another's children, and how often each is active."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.evaluation.ground_truth.config import GroundTruthConfig


class Active(NamedTuple):
    """Pairs of a token and a feature that is active there, in no particular order."""

    tokens: Int[Tensor, " n"]
    features: Int[Tensor, " n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Trees of features. F features, C children of a parent.

    Attributes:
        parent: of each feature; -1 for roots and lone features.
        children: of each feature; -1 throughout for those without.
        frequency: how often each is active; exact, not estimated.
        child_odds: with what probability each child is active where its parent is; the rest of 1 is
            for no child.
    """

    parent: Int[Tensor, " F"]
    children: Int[Tensor, "F C"]
    frequency: Float[Tensor, " F"]
    child_odds: Float[Tensor, " C"]

    @classmethod
    def draw(cls, config: GroundTruthConfig, generator: torch.Generator) -> "Hierarchy":
        """Number the trees first, generation by generation, and give roots random ranks.

        Raises:
            ConfigError: the most frequent feature would be active more than always.
        """
        parent, children = _trees(config)
        odds = config.child_share * _zipf(config.branching, config.zipf)
        above = (parent < 0).nonzero().flatten()
        frequency = torch.zeros(config.num_features, dtype=torch.float64)
        ranks = torch.randperm(len(above), generator=generator)
        frequency[above] = _zipf(len(above), config.zipf)[ranks]
        for feature in range(config.num_features):  # parents have lower numbers than children
            if children[feature, 0] >= 0:
                frequency[children[feature]] = frequency[feature] * odds
        frequency *= config.l0 / frequency.sum()
        if frequency.max() > 1:
            raise ConfigError(
                f"l0 is {config.l0}: the most frequent feature would be active at "
                f"{float(frequency.max()):.0%} of the tokens; lower l0 or zipf, or add features"
            )
        return cls(parent=parent, children=children, frequency=frequency, child_odds=odds)

    def sample(self, tokens: int, generator: torch.Generator) -> Active:
        """Which features are active at each of `tokens` tokens, drawn independently."""
        above = (self.parent < 0).nonzero().flatten()
        chance = torch.rand(tokens, len(above), generator=generator)
        token, number = (chance < self.frequency[above].float()).nonzero(as_tuple=True)
        generations = [Active(token, above[number])]
        edges = self.child_odds.cumsum(0).float()
        while len(generations[-1].tokens):
            token, feature = generations[-1]
            drawn = torch.bucketize(torch.rand(len(token), generator=generator), edges, right=True)
            has = (drawn < len(edges)) & (self.children[feature, 0] >= 0)
            generations.append(Active(token[has], self.children[feature[has], drawn[has]]))
        return Active(*(torch.cat(column) for column in zip(*generations, strict=True)))

    def descends(self) -> Tensor:
        """[F, F], true where the first feature is below the second in its tree."""
        count = len(self.parent)
        below = torch.zeros(count, count, dtype=torch.bool)
        for feature in range(count):
            above = int(self.parent[feature])
            if above >= 0:
                below[feature] = below[above]
                below[feature, above] = True
        return below


def _trees(config: GroundTruthConfig) -> tuple[Int[Tensor, " F"], Int[Tensor, "F C"]]:
    """Parent and children of every feature: all roots, then all their children, and so on."""
    parent = torch.full((config.num_features,), -1)
    children = torch.full((config.num_features, config.branching), -1)
    generation, following = torch.arange(config.trees), config.trees
    for _ in range(config.depth):
        born = torch.arange(following, following + len(generation) * config.branching)
        parent[born] = generation.repeat_interleave(config.branching)
        children[generation] = born.view(len(generation), config.branching)
        generation, following = born, following + len(born)
    return parent, children


def _zipf(count: int, exponent: float) -> Float[Tensor, " n"]:
    """r^-exponent for r = 1, 2, ..., summing to 1."""
    weights = torch.arange(1, count + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()
