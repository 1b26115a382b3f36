"""Near-duplicates: features whose decoder rows point almost the same way."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import normalize

from pellucid.dictionaries.base import Dictionary

DUPLICATE_ABOVE = 0.9
_ROWS = 4096  # cosines held at once: 4096 x 4096, 64 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """How many features of a dictionary have a near-duplicate.

    Attributes:
        share: of features whose decoder row has a cosine above `DUPLICATE_ABOVE` with another one.
        random: the share expected of as many random directions of the same width.
    """

    share: float
    random: float


@torch.no_grad()
def near_duplicates(dictionary: Dictionary) -> Duplicates:
    """Compare every decoder row with every other, block by block.

    Time grows with the square of the features, memory does not. A row of zeros (a feature that has
    never been trained) has no direction and is nobody's duplicate.

    Args:
        dictionary: one with a single decoder.
    """
    count = dictionary.num_features
    found: Bool[Tensor, " F"] = torch.zeros(count, dtype=torch.bool)
    for start in range(0, count, _ROWS):
        rows = _directions(dictionary, start)
        for other in range(start, count, _ROWS):
            cosines = rows @ (rows if other == start else _directions(dictionary, other)).T
            if other == start:
                cosines.fill_diagonal_(0)
            close = cosines > DUPLICATE_ABOVE
            found[start : start + _ROWS] |= close.any(dim=1).cpu()
            found[other : other + _ROWS] |= close.any(dim=0).cpu()
    return Duplicates(share=int(found.sum()) / count, random=random_share(count, dictionary.d_out))


def random_share(count: int, width: int) -> float:
    """The expected share of near-duplicates among `count` independent random directions.

    The cosine of two of them in `width` dimensions exceeds c > 0 with probability
    p = I(1 - c^2; (width - 1) / 2, 1/2) / 2, I the regularised incomplete beta function (it is the
    area of a spherical cap), so one has a near-duplicate with probability 1 - (1 - p)^(count - 1).

    Args:
        count: how many directions, at least 1.
        width: of the space, at least 2.
    """
    from scipy.special import betainc

    single = float(betainc((width - 1) / 2, 0.5, 1 - DUPLICATE_ABOVE**2)) / 2
    return 1 - (1 - single) ** (count - 1)


def _directions(dictionary: Dictionary, start: int) -> Tensor:
    """Unit rows of the decoder from `start` on, at most `_ROWS`."""
    stop = min(start + _ROWS, dictionary.num_features)
    indices = torch.arange(start, stop, device=dictionary.W_dec.device)
    return normalize(dictionary.decoder_rows(indices).float(), dim=1)
