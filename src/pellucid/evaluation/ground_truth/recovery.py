"""What a dictionary recovers of true features: their directions, and when they are active."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.dictionaries.base import Dictionary
from pellucid.evaluation.ground_truth.absorption import absorbed_share
from pellucid.evaluation.ground_truth.truth import GroundTruth, Sample
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.fidelity import measure_dictionaries

RECOVERED_ABOVE = 0.9
FOUND_FROM = 0.5
"""A latent stands for a feature from this precision on; a feature is found from this F1 on."""
MEASURED_TOKENS = 40_000
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a dictionary's latents relate to true features.

    "Decoder" is what a latent writes; cosines are signed, because features are never negative.

    Attributes:
        fvu: fraction of variance unexplained.
        l0: mean number of active latents a token.
        dead: share of latents that no token measured makes active.
        mmcs: mean over true features of the largest cosine of a decoder row with the feature's
            direction (mean max cosine similarity: Sharkey et al. 2022).
        mcc: mean cosine of the one-to-one matching of decoder rows with directions that has the
            largest sum (Hungarian), over min(latents, features) pairs.
        recovered: share of true features whose match has a cosine above `RECOVERED_ABOVE`.
        latent_f1: mean over latents of the best F1 with which one tells where any one true feature
            is active; 0 for a dead latent.
        feature_f1: mean over true features of the best F1 of any one latent.
        split: share of the features that some latent stands for that several stand for. A latent
            stands for the feature that it has the best F1 with, if at least `FOUND_FROM` of its
            firing is there.
        absorbed: see `absorption`.
        parents: over how many found parents `absorbed` is a mean; it is 0 where there are none.
    """

    fvu: float
    l0: float
    dead: float
    mmcs: float
    mcc: float
    recovered: float
    latent_f1: float
    feature_f1: float
    split: float
    absorbed: float
    parents: int

    def to_json(self) -> dict[str, float]:
        """Its plain form."""
        return asdict(self)


@torch.no_grad()
def measure_recovery(
    dictionary: Dictionary,
    truth: GroundTruth,
    *,
    tokens: int = MEASURED_TOKENS,
    seed: int = 1_000_000,
) -> Recovery:
    """Compare a dictionary with the features its activations were made of.

    Args:
        dictionary: reads and writes the truth's sites.
        truth: the features.
        tokens: how many to sample.
        seed: of the sample; training must not have seen it.

    Raises:
        DictionaryError: the dictionary reads or writes another width.
    """
    samples = list(_samples(truth, tokens, seed))
    cosines_FL = truth.write @ normalize(dictionary.W_dec.float(), dim=1).T
    f1_FL, precision_FL = firing_agreement(dictionary, samples)
    parents = _found_parents(truth, f1_FL)
    stands_for = f1_FL.argmax(dim=0)
    matched = matched_cosines(cosines_FL)
    batches = (
        ActivationBatch(
            {dictionary.read_site: sample.x, dictionary.write_site: sample.y},
            torch.zeros(len(sample.x), dtype=torch.int64),
        )
        for sample in samples
    )
    (fidelity,) = measure_dictionaries({0: dictionary}, batches, tokens=tokens)
    return Recovery(
        fvu=fidelity.fvu,
        l0=fidelity.l0,
        dead=fidelity.dead,
        mmcs=float(cosines_FL.amax(dim=1).mean()),
        mcc=float(matched.mean()),
        recovered=int((matched > RECOVERED_ABOVE).sum()) / len(cosines_FL),
        latent_f1=float(f1_FL.amax(dim=0).mean()),
        feature_f1=float(f1_FL.amax(dim=1).mean()),
        split=_split(stands_for, precision_FL),
        absorbed=absorbed_share(
            dictionary,
            truth,
            samples,
            parents=parents,
            main=f1_FL.argmax(dim=1),
            stands_for=stands_for,
        ),
        parents=len(parents),
    )


def matched_cosines(cosines_FL: Float[Tensor, "F L"]) -> Float[Tensor, " pairs"]:
    """The cosines of the one-to-one matching with the largest sum, min(F, L) of them."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cosines_FL.numpy(), maximize=True)
    return cosines_FL[torch.from_numpy(rows), torch.from_numpy(columns)]


def firing_agreement(
    dictionary: Dictionary, samples: list[Sample]
) -> tuple[Float[Tensor, "F L"], Float[Tensor, "F L"]]:
    """How well the firing of each latent tells that of each true feature.

    Returns:
        F1 = 2 |both| / (|feature| + |latent|), and the precision |both| / |latent|; 0 where the
        latent, or neither of them, is ever active.
    """
    both = torch.zeros(samples[0].codes.num_features, dictionary.num_features)
    features, latents = torch.zeros(len(both)), torch.zeros(both.shape[1])
    for sample in samples:
        true = sample.firing.float()
        found = (dictionary.encode(sample.x).dense() != 0).float()
        both += true.T @ found
        features += true.sum(dim=0)
        latents += found.sum(dim=0)
    f1 = 2 * both / (features[:, None] + latents).clamp_min(1)
    return f1, both / latents.clamp_min(1)


def _samples(truth: GroundTruth, tokens: int, seed: int) -> Iterator[Sample]:
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, tokens, _TOKENS_AT_ONCE):
        yield truth.sample(min(_TOKENS_AT_ONCE, tokens - start), generator)


def _found_parents(truth: GroundTruth, f1_FL: Float[Tensor, "F L"]) -> Int[Tensor, " P"]:
    """Features with children that some latent finds."""
    has_children = truth.hierarchy.children[:, 0] >= 0
    return (has_children & (f1_FL.amax(dim=1) >= FOUND_FROM)).nonzero().flatten()


def _split(stands_for: Int[Tensor, " L"], precision_FL: Float[Tensor, "F L"]) -> float:
    precise = precision_FL.gather(0, stands_for[None])[0] >= FOUND_FROM
    counts = torch.bincount(stands_for[precise], minlength=len(precision_FL))
    return int((counts > 1).sum()) / max(1, int((counts > 0).sum()))
