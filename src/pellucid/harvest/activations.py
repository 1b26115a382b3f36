"""Activations of a text, block after block: what a model computes now, or what a cache holds.

The tokens of a block are the smallest unit that has to be computed together to come out the same
bit for bit. How a text is cut into blocks depends on the text, the model's sites and the
`HarvestConfig`, never on how the activations are used. So live and cached activations of a text
are the same sequence, and all that comes after it (`stream.ActivationStream`, the trainer) is the
same code.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import AnySite


class ActivationBatch(NamedTuple):
    """Activations of N tokens at several sites, in float32, and the tokens' ids."""

    values: dict[AnySite, Float[Tensor, "N D"]]
    tokens: Int[Tensor, " N"]


class Block(NamedTuple):
    """Activations of consecutive tokens of text.

    Attributes:
        values: of N tokens at every site, in float32.
        tokens: their ids, on the CPU.
        excluded: how many more text tokens the block had, which a policy left out.
    """

    values: dict[AnySite, Float[Tensor, "N D"]]
    tokens: Int[Tensor, " N"]
    excluded: int


class ActivationSource(ABC):
    """An endless sequence of blocks; a text that ends is read again from its beginning.

    Attributes:
        name: of the text, for messages.
    """

    name: str

    @property
    @abstractmethod
    def tokens_a_reading(self) -> int | None:
        """How many text tokens the source has, once that is known."""

    @abstractmethod
    def next_block(self) -> Block:
        """The next block, never without a token.

        Raises:
            DataError: the text cannot be read or learned from.
        """

    def skip_block(self) -> None:
        """Go past the next block."""
        self.next_block()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the values and their order, beside model, text and sites; JSON-able."""

    @abstractmethod
    def state_dict(self) -> dict[str, int]:
        """Where the next block begins."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where `state_dict` was taken."""


class SharedActivations(ActivationSource):
    """One process's share of a source: every `size`-th block, beginning with block `rank`.

    Its state is that of the source before a round of blocks, one for each process, so that any
    number of processes can go on from it.

    Args:
        source: the activations; this object alone must read them.
        rank: which process this is.
        size: how many there are.
    """

    def __init__(self, source: ActivationSource, *, rank: int, size: int) -> None:
        self.name = source.name
        self._source, self._rank, self._size = source, rank, size

    @property
    def tokens_a_reading(self) -> int | None:
        """See `ActivationSource.tokens_a_reading`."""
        return self._source.tokens_a_reading

    def next_block(self) -> Block:
        """See `ActivationSource.next_block`."""
        for _ in range(self._rank):
            self._source.skip_block()
        block = self._source.next_block()
        for _ in range(self._rank + 1, self._size):
            self._source.skip_block()
        return block

    def settings(self) -> dict[str, Any]:
        """Those of the source."""
        return self._source.settings()

    def state_dict(self) -> dict[str, int]:
        """See `ActivationSource.state_dict`."""
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `ActivationSource.load_state_dict`."""
        self._source.load_state_dict(state)
