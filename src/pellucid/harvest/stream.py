"""Batches of shuffled activations: what dictionaries are trained and measured on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.harvest.activations import ActivationBatch, ActivationSource, Block
from pellucid.harvest.shuffle import ActivationBuffer, fill_order

BUFFER_BYTES = 1 << 29
MOST_BUFFERED_TOKENS = 1 << 17


def tokens_to_shuffle(widths: Sequence[int]) -> int:
    """How many tokens to shuffle together: what `BUFFER_BYTES` hold in float32, within a bound."""
    return min(BUFFER_BYTES // (4 * sum(widths)), MOST_BUFFERED_TOKENS)


class ActivationStream:
    """An endless iterator of shuffled `ActivationBatch`es of exactly the same size.

    It fills a buffer with consecutive tokens of a source, gives them out in a random order, and
    fills it again. The state is where the fill began, its number and how many batches of it are
    out: resuming fills it again, so the batches that follow are bit for bit those of an
    uninterrupted stream (with the same number of threads). Every stream keeps the contract that
    `conformance.check_stream` checks.

    Args:
        source: live or cached activations; the stream alone must read it.
        batch_tokens: how many tokens every batch has.
        fill_batches: how many batches are shuffled together.
        seed: of the order.

    Attributes:
        source: the activations.

    Raises:
        ConfigError: sizes that make no batch.
    """

    def __init__(
        self,
        source: ActivationSource,
        *,
        batch_tokens: int,
        fill_batches: int,
        seed: int = 0,
    ) -> None:
        for name, value in (("batch_tokens", batch_tokens), ("fill_batches", fill_batches)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; give a positive number")
        self.source = source
        self._batch_tokens, self._fill_batches, self._seed = batch_tokens, fill_batches, seed
        self._buffer = ActivationBuffer(batch_tokens * fill_batches)
        self._order: Int[Tensor, " fill"] | None = None
        self._fill, self._next_batch = 0, 0
        self._block: Block | None = None
        self._place = self._start = _Place(source.state_dict(), 0, 0)

    @property
    def excluded(self) -> int:
        """How many tokens a policy has left out of the text read so far."""
        return self._place.excluded + (self._block.excluded if self._block else 0)

    def __iter__(self) -> "ActivationStream":
        return self

    def __next__(self) -> ActivationBatch:
        if self._order is None:
            self._order = self._filled()
        begin = self._next_batch * self._batch_tokens
        chosen = self._order[begin : begin + self._batch_tokens]
        batch = ActivationBatch(*self._buffer.take(chosen))
        self._next_batch += 1
        if self._next_batch == self._fill_batches:
            self._fill, self._next_batch = self._fill + 1, 0
            self._start, self._order = self._place, None
        return batch

    def close(self) -> None:
        """Give the memory of the buffer and the block back, once no batch is wanted any more."""
        self._buffer, self._order = ActivationBuffer(0), None
        self._place, self._block = self._place._replace(excluded=self.excluded), None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here; JSON-able."""
        return {"fill": self._fill, "next_batch": self._next_batch, **self._start._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, on a stream made with the same arguments."""
        self._fill, self._next_batch = state["fill"], state["next_batch"]
        self._start = self._place = _Place(*(state[name] for name in _Place._fields))
        self._order = self._block = None

    def _filled(self) -> Int[Tensor, " fill"]:
        """Fill the buffer; the order in which to give it out."""
        self._buffer.clear()
        missing = self._batch_tokens * self._fill_batches
        while missing:
            block, begin = self._block_at_hand(), self._place.given
            end = min(begin + missing, len(block.tokens))
            part = {site: rows[begin:end] for site, rows in block.values.items()}
            self._buffer.append(part, block.tokens[begin:end])
            missing -= end - begin
            self._place = self._place._replace(given=end)
            if end == len(block.tokens):
                self._place = _Place(self.source.state_dict(), 0, self.excluded)
                self._block = None
                del block, part  # no two blocks are in memory at the same time
        return fill_order(len(self._buffer), seed=self._seed, fill=self._fill)

    def _block_at_hand(self) -> Block:
        if self._block is None:
            self.source.load_state_dict(self._place.block)
            self._block = self.source.next_block()
        return self._block


def further(states: Sequence[dict[str, Any]], rank: int) -> dict[str, Any]:
    """From the states of several streams over shares of one source, that of one of any number.

    They go on from the furthest block that any of them had reached, with a new fill. What all had
    left out by then is in the count of the first one, so that the sum over streams stays.

    Args:
        states: of the streams before.
        rank: which of the streams to come the state is for.
    """
    furthest = max(states, key=lambda state: tuple(state["block"].values()))
    fill = 1 + max(state["fill"] for state in states)
    excluded = sum(state["excluded"] for state in states) if rank == 0 else 0
    return furthest | {"fill": fill, "next_batch": 0, "given": 0, "excluded": excluded}


class _Place(NamedTuple):
    """A place in the source.

    Attributes:
        block: where its block begins, as the source says it.
        given: how many tokens of that block have been given out.
        excluded: how many tokens were left out of the blocks before.
    """

    block: dict[str, int]
    given: int
    excluded: int
