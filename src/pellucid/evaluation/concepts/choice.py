"""Which features stand for a concept: chosen on one text, to be measured on another."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.types import SparseCodes

SPLIT_GAIN = 0.03
"""A further feature shares a concept if it raises the F1 of all together by more (SAEBench)."""
CANDIDATES = 16
"""The features with the best F1 alone, which may share a concept."""
SPECIFIC_FROM = 0.5
"""The precision from which a feature is a more specific case of a concept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The features chosen for C concepts of F features.

    Attributes:
        f1: of each concept's best feature.
        sets: numbers of the features that share each concept, the best first; -1 where there are
            fewer.
        specific: whether a feature is a more specific case of a concept than its best feature: at
            least `SPECIFIC_FROM` of its firing is there, and it is active at fewer of its tokens.
    """

    f1: Float[Tensor, " C"]
    sets: Int[Tensor, "C S"]
    specific: Bool[Tensor, "F C"]

    @property
    def main(self) -> Int[Tensor, " C"]:
        """Each concept's best feature."""
        return self.sets[:, 0]

    @property
    def features(self) -> Int[Tensor, " C"]:
        """How many features share each concept."""
        return (self.sets >= 0).sum(dim=1)


def choose(codes: SparseCodes, members: Bool[Tensor, "N C"]) -> Choice:
    """Choose features by how well their firing tells where a concept is.

    F1 = 2 |both| / (|feature active| + |concept|). The best feature comes first; then, as long as
    the F1 of "any of them is active" rises by more than `SPLIT_GAIN`, the one that raises it most.

    Args:
        codes: of the N tokens.
        members: which concepts each token belongs to.
    """
    both, fires = _counts(codes, members)
    tokens = members.sum(dim=0)
    f1 = 2 * both / (fires[:, None] + tokens).clamp_min(1)
    candidates = f1.topk(min(CANDIDATES, len(f1)), dim=0).indices.T
    best = f1.amax(dim=0)
    sets = torch.full((len(candidates), candidates.shape[1]), -1)
    for concept, numbers in enumerate(candidates):
        chosen = _greedy(firing(codes, numbers), members[:, concept])
        sets[concept, : len(chosen)] = numbers[chosen]
    at_best = both.gather(0, sets[:, 0][None])
    specific = (both >= SPECIFIC_FROM * fires[:, None].clamp_min(1)) & (both < at_best)
    return Choice(f1=best, sets=sets, specific=specific)


def firing(codes: SparseCodes, features: Int[Tensor, " n"]) -> Bool[Tensor, "N n"]:
    """Where each of some features is active; never for a number of -1."""
    slots = torch.full((codes.num_features + 1,), -1)
    known = features >= 0
    distinct, places = features[known].unique(return_inverse=True)
    slots[distinct] = torch.arange(len(distinct))
    active = torch.zeros(len(codes.values), len(distinct) + 1, dtype=torch.bool)
    token, column = (codes.values != 0).nonzero(as_tuple=True)
    active[token, slots[codes.indices[token, column].long()]] = True  # the last: none of them
    found = torch.zeros(len(codes.values), len(features), dtype=torch.bool)
    found[:, known] = active[:, places]
    return found


def _counts(
    codes: SparseCodes, members: Bool[Tensor, "N C"]
) -> tuple[Float[Tensor, "F C"], Float[Tensor, " F"]]:
    """At how many tokens of each concept, and of all, each feature is active."""
    both = torch.zeros(codes.num_features, members.shape[1])
    weights = members.float()
    for values, indices in zip(codes.values.T, codes.indices.T, strict=True):
        active = values != 0
        both.index_add_(0, indices[active].long(), weights[active])
    active = codes.indices[codes.values != 0].long()
    return both, torch.bincount(active, minlength=codes.num_features).float()


def _greedy(active: Bool[Tensor, "N n"], member: Bool[Tensor, " N"]) -> list[int]:
    """Which candidates share a concept, the first of them (the best alone) always."""
    chosen, covered = [0], active[:, 0]
    reached = _f1(covered[:, None], member)[0]
    while len(chosen) < active.shape[1]:
        scores = _f1(covered[:, None] | active, member)
        best = int(scores.argmax())
        if scores[best] - reached <= SPLIT_GAIN:
            break
        chosen.append(best)
        covered, reached = covered | active[:, best], scores[best]
    return chosen


def _f1(active: Bool[Tensor, "N n"], member: Bool[Tensor, " N"]) -> Float[Tensor, " n"]:
    both = active[member].sum(dim=0)
    return 2 * both / (active.sum(dim=0) + member.sum()).clamp_min(1)
