"""Absorption: where a feature is active, its latent is silent, and a child's latent covers for it.

After Chanin et al. (2024), with the true features in place of a probe. Let p be a feature with
children, E_p its true direction at the site written, and m the latent with the best F1 for p. At a
token where p is active, p is absorbed iff

    m is silent, and
    the active latent j that writes most along E_p, argmax_j a_j <W_dec[j], E_p>,
        stands for a feature below p in its tree (the one with which j has the best F1), and
        has a cosine above 3 / sqrt(d) with E_p: three standard deviations of a random direction's.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.dictionaries.base import Dictionary
from pellucid.evaluation.absorption import aligned_above, strongest_writer
from pellucid.evaluation.ground_truth.truth import GroundTruth, Sample


def absorbed_share(
    dictionary: Dictionary,
    truth: GroundTruth,
    samples: Sequence[Sample],
    *,
    parents: Int[Tensor, " P"],
    main: Int[Tensor, " F"],
    stands_for: Int[Tensor, " L"],
) -> float:
    """The share of a parent's tokens at which it is absorbed, a mean over parents; 0 without any.

    Args:
        dictionary: whose latents.
        truth: the features.
        samples: tokens to count.
        parents: features with children.
        main: of every feature the latent that tells it best.
        stands_for: of every latent the feature it tells best.
    """
    if not len(parents):
        return 0.0
    directions_PD = truth.write[parents]
    written_LP = dictionary.W_dec.float() @ directions_PD.T
    cosine_LP = normalize(dictionary.W_dec.float(), dim=1) @ directions_PD.T
    covers_LP = truth.hierarchy.descends()[stands_for][:, parents]
    covers_LP &= cosine_LP > aligned_above(truth.write.shape[1])
    active, absorbed = torch.zeros(len(parents)), torch.zeros(len(parents))
    for sample in samples:
        codes = dictionary.encode(sample.x)
        true_NP = sample.firing[:, parents]
        fires_NP = codes.dense()[:, main[parents]] != 0
        token, parent = (true_NP & ~fires_NP).nonzero(as_tuple=True)
        strongest = strongest_writer(codes, token, written_LP, parent)
        covered = (strongest >= 0) & covers_LP[strongest, parent]
        active += true_NP.sum(dim=0)
        absorbed += torch.bincount(parent[covered], minlength=len(parents))
    return float((absorbed / active.clamp_min(1)).mean())
