"""Dictionaries that nobody trained: what recovery comes for nothing, and what is possible.

truth     the true directions, read and written: what an encoder of one direction a feature can do.
random    as many random unit directions.
pca       the principal components of what is read, each with both signs.

All keep the k largest a token. One scale, the least-squares one, fits what they write.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.dictionaries import SAE, Dictionary, TopK, Transcoder
from pellucid.evaluation.ground_truth.truth import GroundTruth, Sample

_FITTED_TOKENS = 20_000


def truth_dictionary(truth: GroundTruth, *, k: int) -> Dictionary:
    """The true directions as a dictionary."""
    return _fitted(truth, _sample(truth), truth.read, truth.write, k=k, centred=False)


def random_dictionary(truth: GroundTruth, *, latents: int, k: int, seed: int = 0) -> Dictionary:
    """Random unit directions as a dictionary."""
    generator = torch.Generator().manual_seed(seed)

    def directions(width: int) -> Float[Tensor, "L d"]:
        return normalize(torch.randn(latents, width, generator=generator), dim=1)

    read = directions(truth.config.width)
    write = read if truth.config.kind == "sae" else directions(truth.config.written)
    return _fitted(truth, _sample(truth), read, write, k=k, centred=True)


def pca_dictionary(truth: GroundTruth, *, k: int) -> Dictionary:
    """Principal components of what is read, and what goes with each at the site written."""
    sample = _sample(truth)
    x, y = sample.x - sample.x.mean(dim=0), sample.y - sample.y.mean(dim=0)
    variance, components = torch.linalg.eigh(x.T @ x)
    read = components.T
    write = (x @ components).T @ y / variance.clamp_min(1e-12)[:, None]
    both = (torch.cat([rows, -rows]) for rows in (read, write))
    return _fitted(truth, sample, *both, k=min(k, 2 * len(read)), centred=True)


def _sample(truth: GroundTruth) -> Sample:
    return truth.sample(_FITTED_TOKENS, torch.Generator().manual_seed(2_000_000))


def _fitted(
    truth: GroundTruth,
    sample: Sample,
    read: Float[Tensor, "L d_in"],
    write: Float[Tensor, "L d_out"],
    *,
    k: int,
    centred: bool,
) -> Dictionary:
    """The dictionary of these directions; if `centred` it reads and writes about the means."""
    mean_x, mean_y = sample.x.mean(dim=0), sample.y.mean(dim=0)
    is_sae = truth.config.kind == "sae"
    kind = SAE if is_sae else Transcoder
    dictionary = kind(
        W_enc=read.clone(),
        b_enc=-read @ mean_x if centred and not is_sae else torch.zeros(len(read)),
        W_dec=write.clone(),
        b_dec=mean_y if centred else torch.zeros_like(mean_y),
        activation=TopK(k),
        read_site=truth.read_site,
        write_site=truth.write_site,
    )
    written = dictionary(sample.x) - dictionary.b_dec
    scale = ((sample.y - dictionary.b_dec) * written).sum() / written.square().sum()
    dictionary.W_dec.mul_(scale.clamp_min(0))
    return dictionary
