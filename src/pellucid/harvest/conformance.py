"""The contract of every stream of activations, as a check that anyone can run on theirs."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch

from pellucid.core.errors import DataError
from pellucid.harvest.activations import ActivationBatch


class Stream(Protocol):
    """An endless iterator of batches whose place can be saved."""

    def __iter__(self) -> Iterator[ActivationBatch]:
        """Itself."""

    def __next__(self) -> ActivationBatch:
        """The next batch."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here; JSON-able."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""


def check_stream(make: Callable[[], Stream], *, batches: int = 12) -> None:
    """Check that a stream does what training relies on.

    Args:
        make: gives the same stream anew, at its beginning, at every call.
        batches: how many to look at; enough to pass the end of a buffer shows most.

    Raises:
        DataError: names the first property that does not hold.
    """
    first = list(islice(make(), batches))
    _demand(len(first) == batches, "it does not end")
    for batch in first:
        _check_batch(batch, first[0])
    _check_ownership(make, first)
    _check_resuming(make, first)


def _check_batch(batch: ActivationBatch, first: ActivationBatch) -> None:
    size = len(first.tokens)
    _demand(size > 0, "a batch has tokens")
    _demand(batch.tokens.shape == (size,), "every batch has the same size")
    _demand(batch.tokens.dtype == torch.int64, "tokens are int64")
    _demand(batch.values.keys() == first.values.keys(), "every batch has the same sites")
    for site, rows in batch.values.items():
        _demand(rows.shape == (size, first.values[site].shape[1]), "a site has one row a token")
        _demand(rows.dtype == torch.float32, "values are float32")
        _demand(not rows.requires_grad, "values need no gradient")


def _check_ownership(make: Callable[[], Stream], first: list[ActivationBatch]) -> None:
    """A batch is its reader's: what the reader does to it changes no later batch."""
    for batch, expected in zip(make(), first, strict=False):
        _demand(_same(batch, expected), "made again, it gives the same; no batch shares memory")
        batch.tokens.zero_()
        for rows in batch.values.values():
            rows.zero_()


def _check_resuming(make: Callable[[], Stream], first: list[ActivationBatch]) -> None:
    stream = make()
    for number in range(len(first)):
        state = stream.state_dict()
        _demand(state == json.loads(json.dumps(state)), "its state is JSON as it is")
        resumed = make()
        resumed.load_state_dict(json.loads(json.dumps(state)))
        _demand(resumed.state_dict() == state, "a state that was loaded is the state")
        for batch, expected in zip(islice(resumed, 3), first[number:], strict=False):
            _demand(_same(batch, expected), "it goes on from a state bit for bit")
        _demand(stream.state_dict() == state, "streams are independent of each other")
        next(stream)


def _same(left: ActivationBatch, right: ActivationBatch) -> bool:
    return left.tokens.equal(right.tokens) and all(
        left.values[site].equal(rows) for site, rows in right.values.items()
    )


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise DataError(f"the stream breaks the contract: {what}; fix its class")
