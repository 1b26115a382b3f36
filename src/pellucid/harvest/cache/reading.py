"""Reading a cache: in the order of the text, as live harvesting gives it, or all shuffled."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite
from pellucid.harvest.activations import ActivationSource, Block
from pellucid.harvest.cache.cache import ActivationCache
from pellucid.harvest.cache.shard import BlockPlace, read_places, read_rows
from pellucid.harvest.shuffle import fill_order

CHUNK_TOKENS = 256
"""Tokens that stay together when a cache is shuffled throughout, before the buffer mixes them."""


class _StoredBlock(NamedTuple):
    """A block and where its rows are."""

    file: Path
    begin: int
    place: BlockPlace


class CachedActivations(ActivationSource):
    """The blocks of a cache in the order of the text: the sequence that live harvesting gives.

    Stored in float32 they are the same bit for bit, and so is the state: a run may change between a
    cache and live harvesting whenever it resumes. One block is in memory at a time.

    Args:
        cache: opened, which verified it.
        sites: which of its sites to read.
        name: of the text, for messages.
        device: where to put the values.
    """

    def __init__(
        self,
        cache: ActivationCache,
        sites: Sequence[AnySite],
        *,
        name: str,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self._cache, self._sites = cache, list(dict.fromkeys(sites))
        self._device = torch.device(device)
        self._blocks = _blocks(cache)
        self._numbers = {
            (block.place.document, block.place.token): number
            for number, block in enumerate(self._blocks)
        }
        end = (cache.shards[-1].document, cache.shards[-1].token)
        self._numbers[end] = len(self._blocks)
        self._places = list(self._numbers)
        self._reading, self._next = 0, 0

    @property
    def tokens_a_reading(self) -> int | None:
        """See `ActivationSource.tokens_a_reading`."""
        return _text_tokens(self._blocks) if self._cache.ended else None

    def next_block(self) -> Block:
        """See `ActivationSource.next_block`.

        Raises:
            DataError: the cache holds only a part of the text, and it is at its end.
        """
        if self._next == len(self._blocks):
            if not self._cache.ended:
                raise DataError(
                    f"the cache in {self._cache.folder} ends after {self._cache.tokens:,} tokens, "
                    "and its text does not; make it longer"
                )
            self._reading, self._next = self._reading + 1, 0
        block = self._blocks[self._next]
        self._next += 1
        values, tokens = _read(self._cache, block, 0, block.place.tokens, self._sites, self._device)
        return Block(values, tokens, block.place.excluded)

    def settings(self) -> dict[str, Any]:
        """See `ActivationSource.settings`."""
        return _settings(self._cache) | {"order": "text"}

    def state_dict(self) -> dict[str, int]:
        """See `ActivationSource.state_dict`; it is that of live activations."""
        document, token = self._places[self._next]
        return {"reading": self._reading, "document": document, "token": token}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `ActivationSource.load_state_dict`."""
        self._reading = state["reading"]
        self._next = self._numbers[state["document"], state["token"]]


class ShuffledActivations(ActivationSource):
    """The beginning of a cache, its chunks of `CHUNK_TOKENS` in a random order.

    All the shards are cut into chunks; every reading gives each once, in a permutation that the
    seed and the reading's number decide. The buffer of the stream mixes them further, as it mixes
    text. One chunk is in memory at a time, and the table of chunks.

    Args:
        cache: opened, which verified it.
        sites: which of its sites to read.
        name: of the text, for messages.
        tokens: shuffle the first blocks that hold so many, however many more there are.
        seed: of the order.
        device: where to put the values.
    """

    def __init__(
        self,
        cache: ActivationCache,
        sites: Sequence[AnySite],
        *,
        name: str,
        tokens: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self._cache, self._sites = cache, list(dict.fromkeys(sites))
        self._device, self._seed = torch.device(device), seed
        blocks = _blocks(cache)
        held = [0, *accumulate(block.place.tokens for block in blocks)]
        self._blocks = [
            block for block, before in zip(blocks, held, strict=False) if before < tokens
        ]
        self._chunks = [
            (number, begin)
            for number, block in enumerate(self._blocks)
            for begin in range(0, block.place.tokens, CHUNK_TOKENS)
        ]
        self._reading, self._next = 0, 0
        self._order = self._permutation()
        self._whole = cache.ended and len(self._blocks) == len(blocks)

    @property
    def tokens_a_reading(self) -> int | None:
        """See `ActivationSource.tokens_a_reading`."""
        return _text_tokens(self._blocks) if self._whole else None

    def next_block(self) -> Block:
        """See `ActivationSource.next_block`: a chunk, counting its share of what was left out."""
        if self._next == len(self._chunks):
            self.load_state_dict({"reading": self._reading + 1, "chunk": 0})
        number, begin = self._chunks[self._order[self._next]]
        self._next += 1
        block = self._blocks[number]
        end = min(begin + CHUNK_TOKENS, block.place.tokens)
        values, tokens = _read(self._cache, block, begin, end, self._sites, self._device)
        excluded, held = block.place.excluded, block.place.tokens
        return Block(values, tokens, excluded * end // held - excluded * begin // held)

    def settings(self) -> dict[str, Any]:
        """See `ActivationSource.settings`."""
        tokens = sum(block.place.tokens for block in self._blocks)
        return _settings(self._cache) | {"order": f"shuffled across {tokens} tokens"}

    def state_dict(self) -> dict[str, int]:
        """See `ActivationSource.state_dict`."""
        return {"reading": self._reading, "chunk": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `ActivationSource.load_state_dict`."""
        self._next = state["chunk"]
        if state["reading"] != self._reading:
            self._reading = state["reading"]
            self._order = self._permutation()

    def _permutation(self) -> list[int]:
        order: list[int] = fill_order(
            len(self._chunks), seed=self._seed, fill=self._reading
        ).tolist()
        return order


def _blocks(cache: ActivationCache) -> list[_StoredBlock]:
    """The blocks of every shard, in order."""
    found = []
    for shard in cache.shards:
        begin = 0
        for place in read_places(cache.folder / shard.file):
            found.append(_StoredBlock(cache.folder / shard.file, begin, place))
            begin += place.tokens
    return found


def _text_tokens(blocks: Sequence[_StoredBlock]) -> int:
    return sum(block.place.tokens + block.place.excluded for block in blocks)


def _read(
    cache: ActivationCache,
    block: _StoredBlock,
    begin: int,
    end: int,
    sites: Sequence[AnySite],
    device: torch.device,
) -> tuple[dict[AnySite, torch.Tensor], torch.Tensor]:
    return read_rows(
        block.file,
        block.begin + begin,
        block.begin + end,
        sites,
        storage=cache.storage,
        device=device,
    )


def _settings(cache: ActivationCache) -> dict[str, Any]:
    """The cache's part of what decides a run, named as live activations name it."""
    shared = {
        name: value
        for name, value in cache.identity.items()
        if name not in ("model", "text", "sites")
    }
    return shared | {"stored": cache.dtype}
