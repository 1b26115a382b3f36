"""How large a cache becomes, and whether the disk has room for it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pellucid.core.errors import StorageError
from pellucid.harvest.cache.storage import STORAGE

_TOKEN_BYTES = 4
_MARGIN = 1.02
"""Headers, tables of blocks and the manifest, generously."""


def bytes_a_token(widths: Iterable[int], dtype: str) -> int:
    """Bytes that a token takes, its id included.

    Raises:
        ConfigError: unknown dtype.
    """
    return _TOKEN_BYTES + sum(STORAGE[dtype].row_bytes(width) for width in widths)


def check_space(folder: Path, tokens: int, widths: Iterable[int], dtype: str) -> None:
    """Refuse a cache that the disk has no room for.

    Args:
        folder: where it will be; need not exist.
        tokens: how many are still to be written.
        widths: of every site.
        dtype: how they are stored.

    Raises:
        StorageError: with what is needed, what is free, and which dtypes would fit.
    """
    widths = list(widths)
    existing = next(each for each in [folder, *folder.absolute().parents] if each.exists())
    free = shutil.disk_usage(existing).free
    sizes = {name: int(tokens * bytes_a_token(widths, name) * _MARGIN) for name in STORAGE}
    if sizes[dtype] <= free:
        return
    fitting = [f"{name} ({_shown(sizes[name])})" for name in STORAGE if sizes[name] <= free]
    raise StorageError(
        f"the cache of {tokens:,} tokens in {folder} needs {_shown(sizes[dtype])} as {dtype}, and "
        f"{_shown(free)} are free; "
        + (f"store {' or '.join(fitting)}" if fitting else "free space, or train without a cache")
    )


def _shown(size: int) -> str:
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size / 1000:.3g} kB"
