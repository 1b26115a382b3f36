"""One shard: a safetensors file of whole blocks.

Its tensors: `tokens` [N] int32; `blocks` [B, 4] int64, a row a block (the document and the token
where its text begins, how many tokens it has, how many were excluded); and at every site the
tensors of the cache's storage, named by the site and a suffix.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pellucid.core.errors import CheckpointError
from pellucid.core.files import atomic_file
from pellucid.core.types import AnySite
from pellucid.harvest.activations import Block
from pellucid.harvest.cache.storage import Storage

_TOKENS, _BLOCKS = "tokens", "blocks"
_SUFFIXES = ("", ".scale")


class BlockPlace(NamedTuple):
    """Where a block of the text is.

    Attributes:
        document, token: where in the text it begins.
        tokens: how many it has.
        excluded: how many were left out.
    """

    document: int
    token: int
    tokens: int
    excluded: int


class PackedBlock(NamedTuple):
    """A block as it is stored."""

    place: BlockPlace
    tensors: dict[str, Tensor]

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def pack_block(block: Block, document: int, token: int, storage: Storage) -> PackedBlock:
    """Make a block ready to be stored.

    Raises:
        DataError: a value that the storage cannot hold.
    """
    tensors = {_TOKENS: block.tokens.to(torch.int32)}
    for site, rows in block.values.items():
        for suffix, stored in storage.pack(rows).items():
            tensors[f"{site}{suffix}"] = stored.cpu()
    return PackedBlock(BlockPlace(document, token, len(block.tokens), block.excluded), tensors)


def write_shard(path: Path, blocks: Sequence[PackedBlock]) -> str:
    """Write a shard atomically; returns the SHA-256 of the bytes meant.

    Raises:
        StorageError: the disk refuses.
    """
    names = blocks[0].tensors
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in names}
    tensors[_BLOCKS] = torch.tensor([block.place for block in blocks], dtype=torch.int64)
    data = save(tensors)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    return sha256(data).hexdigest()


def read_places(path: Path) -> list[BlockPlace]:
    """The blocks of a shard, in order.

    Raises:
        CheckpointError: it is not a shard.
    """
    try:
        with safe_open(path, framework="pt") as shard:
            return [BlockPlace(*row) for row in shard.get_tensor(_BLOCKS).tolist()]
    except (SafetensorError, OSError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a shard of a cache ({error}); restore it from a copy, or "
            "delete the cache and make it again"
        ) from error


def read_rows(
    path: Path,
    begin: int,
    end: int,
    sites: Sequence[AnySite],
    *,
    storage: Storage,
    device: torch.device,
) -> tuple[dict[AnySite, Tensor], Tensor]:
    """Rows `begin` to `end` of a shard, and nothing else of it: values by site, and tokens."""
    with safe_open(path, framework="pt") as shard:
        stored = set(shard.keys())
        values = {
            site: storage.unpack(
                {
                    suffix: shard.get_slice(f"{site}{suffix}")[begin:end].to(device)
                    for suffix in _SUFFIXES
                    if f"{site}{suffix}" in stored
                }
            )
            for site in sites
        }
        return values, shard.get_slice(_TOKENS)[begin:end].long()
