"""How this process's memory is allocated."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_MMAP_THRESHOLD = 2**25


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB for the next ones, instead of handing them back (glibc).

    Memory handed back returns as zeroed pages, one fault every 4 KiB: a fifth of a training step of
    a small dictionary. Elsewhere nothing is done. Only a program may decide this, not a library.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, 2**30)
