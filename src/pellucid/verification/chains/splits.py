"""Which part of an experiment a question belongs to: decided by its text, so parts never meet.

The same question falls into the same part in every data set, whatever wrote the chain, so that sets
that are collected one by one can be put together afterwards.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Int64

from pellucid.core.errors import ConfigError


def part_of(group: str, shares: Mapping[str, float], *, seed: int = 0) -> str:
    """The part of one question.

    Args:
        group: the question's text.
        shares: part -> share of the questions that it gets; they sum to 1.
        seed: another seed deals the questions out anew.

    Raises:
        ConfigError: the shares do not sum to 1, or one is negative.
    """
    if min(shares.values(), default=-1.0) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ConfigError(f"the shares {dict(shares)} do not sum to 1; change them")
    digest = sha256(f"{seed}:{group}".encode()).digest()
    place, until = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in shares.items():
        until += share
        if place < until:
            return name
    return name


def deal(
    groups: Sequence[str], shares: Mapping[str, float], *, seed: int = 0
) -> dict[str, Int64[np.ndarray, " n"]]:
    """Row numbers of every part; rows of one group are always together.

    Args:
        groups: each row's question.
        shares: see `part_of`.
        seed: see `part_of`.

    Raises:
        ConfigError: the shares do not sum to 1, or one is negative.
    """
    known = {group: part_of(group, shares, seed=seed) for group in set(groups)}
    parts = np.array([known[group] for group in groups], dtype=object)
    return {name: np.flatnonzero(parts == name) for name in shares}
