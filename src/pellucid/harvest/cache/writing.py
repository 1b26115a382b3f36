"""Writing a cache: shard after shard, each whole before the manifest names it.

A process that dies leaves a cache that is a prefix of the text, and perhaps a file that no manifest
names, which the next one replaces. What is written after a resume is what would have been written
without the interruption, byte for byte (on one thread).
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import storage_errors
from pellucid.core.manifest import MANIFEST_NAME
from pellucid.harvest.cache.cache import (
    ActivationCache,
    OnProgress,
    ShardRecord,
    check_identity,
    has_cache,
    open_cache,
)
from pellucid.harvest.cache.shard import PackedBlock, pack_block, write_shard
from pellucid.harvest.cache.space import check_space
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.live import LiveActivations

logger = logging.getLogger(__name__)

SHARD_BYTES = 1 << 27
_LOCK = ".lock"


def write_cache(
    live: LiveActivations,
    folder: str | Path,
    *,
    tokens: int,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress | None = None,
) -> ActivationCache:
    """Make a cache, or complete one, so that it holds `tokens` tokens or the whole text.

    Args:
        live: what to store; its position changes.
        folder: of the cache.
        tokens: how many it has to hold; whole blocks are stored, so it may be more.
        dtype: a name of `STORAGE`; by default what the cache has, "float32" for a new one.
        shard_bytes: a shard ends with the first block that makes it this large. As much is held in
            memory, twice for a moment.
        on_progress: told how many tokens of how many are verified, and then stored.

    Returns:
        The cache, its checksums verified.

    Raises:
        ConfigError: the folder has a cache of something else, or an unknown dtype.
        CheckpointError: a file of the cache that is there is damaged, or its manifest is lost.
        StorageError: too little space, or the disk refuses; what was written stays of use.
        DataError: the text cannot be read, or a value cannot be stored.
    """
    folder = Path(folder)
    wanted = live.identity() | ({} if dtype is None else {"dtype": dtype})
    cache = _opened(live, folder, wanted, tokens, on_progress)
    if cache.holds(tokens):
        return cache
    check_space(folder, tokens - cache.tokens, live.widths.values(), cache.dtype)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder) as waited:
        if waited:
            cache = _opened(live, folder, wanted, tokens, on_progress)
        _complete(cache, live, tokens, shard_bytes, on_progress)
    return cache


def _opened(
    live: LiveActivations,
    folder: Path,
    wanted: dict[str, Any],
    tokens: int,
    on_progress: OnProgress | None,
) -> ActivationCache:
    """The cache of the folder, checked, or one that holds nothing yet."""
    shards = len(list(folder.glob("shard-*.safetensors")))
    if has_cache(folder):
        cache = open_cache(folder, on_progress=on_progress)
        check_identity(cache, wanted, complete=not cache.holds(tokens))
        return cache
    if shards > 1:  # a killed writer leaves one at most that no manifest names
        raise CheckpointError(
            f"{folder / MANIFEST_NAME} is missing, but {shards} shards are there; restore it from "
            "a copy, or delete the shards to make the cache again"
        )
    dtype = wanted.get("dtype", "float32")
    STORAGE[dtype]  # refuses an unknown name
    return ActivationCache(
        folder=folder, identity=live.identity(), dtype=dtype, shards=[], ended=False
    )


@contextmanager
def _only_writer(folder: Path) -> Iterator[bool]:
    """Wait until no other process writes here; whether that took waiting."""
    with (folder / _LOCK).open("w") as lock:
        waited = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            logger.warning("another process is writing the cache in %s: waiting for it", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield waited


def _complete(
    cache: ActivationCache,
    live: LiveActivations,
    tokens: int,
    shard_bytes: int,
    on_progress: OnProgress | None,
) -> None:
    with storage_errors(cache.folder):
        for abandoned in cache.folder.glob(".*.tmp"):  # by a process killed while it was writing
            abandoned.unlink()
    begin = cache.shards[-1] if cache.shards else None
    live.load_state_dict(
        {
            "reading": 0,
            "document": begin.document if begin else 0,
            "token": begin.token if begin else 0,
        }
    )
    pending: list[PackedBlock] = []
    while not cache.holds(tokens):
        place = live.state_dict()
        block = live.next_block()
        after = live.state_dict()
        cache.ended = after["reading"] > 0
        if not cache.ended:
            pending.append(pack_block(block, place["document"], place["token"], cache.storage))
            place = after
        stored = cache.tokens + sum(each.place.tokens for each in pending)
        full = sum(each.size for each in pending) >= shard_bytes or stored >= tokens
        if full or cache.ended:
            if pending:
                cache.shards.append(_write(cache, pending, place))
                pending = []
            cache.save()
        if on_progress:
            on_progress(stored, max(stored, tokens))


def _write(
    cache: ActivationCache, pending: list[PackedBlock], after: dict[str, int]
) -> ShardRecord:
    name = f"shard-{len(cache.shards):05d}.safetensors"
    return ShardRecord(
        file=name,
        sha256=write_shard(cache.folder / name, pending),
        tokens=sum(each.place.tokens for each in pending),
        document=after["document"],
        token=after["token"],
    )
