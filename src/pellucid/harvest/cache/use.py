"""From live activations to the same ones read from a cache, which is made or completed first."""

from pathlib import Path
from typing import Literal, get_args

from pellucid.core.errors import ConfigError
from pellucid.harvest.activations import ActivationSource
from pellucid.harvest.cache.cache import OnProgress
from pellucid.harvest.cache.reading import CachedActivations, ShuffledActivations
from pellucid.harvest.cache.writing import write_cache
from pellucid.harvest.live import LiveActivations

CacheOrder = Literal["text", "shuffled"]


def through_cache(
    live: LiveActivations,
    folder: str | Path,
    *,
    tokens: int,
    dtype: str | None = None,
    order: CacheOrder = "text",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> ActivationSource:
    """The activations of a cache, made if it is absent, completed if it is partial.

    Args:
        live: what the cache holds, or will.
        folder: of the cache.
        tokens: how many it has to hold.
        dtype: what a new cache stores, a name of `STORAGE` (float32 by default); one that is there
            must be of it, if it is given.
        order: "text" gives what `live` gives; "shuffled" mixes the whole cache.
        seed: of the shuffled order.
        on_progress: told how many tokens are stored, and how many have to be.

    Raises:
        ConfigError: unknown order or dtype, or a cache of something else.
        CheckpointError: the cache is damaged.
        StorageError: too little space, or the disk refuses.
        DataError: the text cannot be read, or a value cannot be stored.
    """
    if order not in get_args(CacheOrder):
        raise ConfigError(f"unknown cache order {order!r}; use one of text, shuffled")
    cache = write_cache(live, folder, tokens=tokens, dtype=dtype, on_progress=on_progress)
    sites = list(live.widths)
    if order == "shuffled":
        return ShuffledActivations(
            cache, sites, name=live.name, tokens=tokens, seed=seed, device=live.device
        )
    return CachedActivations(cache, sites, name=live.name, device=live.device)
