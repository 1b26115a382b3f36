"""This process among those of torchrun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pellucid.attribution.many import Share


@contextmanager
def ranks() -> Iterator[Share]:
    """This process's share under torchrun; the whole without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Share()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield Share(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def gathered(counts: dict[str, int], share: Share) -> list[dict[str, int]]:
    """The counts of every process, in all of them; it waits for the slowest.

    Args:
        counts: of this process.
        share: of it.
    """
    if share.world == 1:
        return [counts]
    import torch.distributed as dist

    every: list[Any] = [None] * share.world
    dist.all_gather_object(every, counts)
    return every
