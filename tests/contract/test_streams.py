"""Every way to get activations keeps the contract of a stream; one that does not is caught."""

from typing import Any

import pytest

from pellucid.core.errors import DataError
from pellucid.harvest.activations import ActivationSource
from pellucid.harvest.cache.reading import CachedActivations, ShuffledActivations
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.conformance import check_stream
from pellucid.harvest.stream import ActivationStream
from support.cached import SITES, TEXT, cached, live, stream_of

# Fills of 11 batches of 64 against blocks of 512, so that batches, fills and blocks end apart.
BATCHES = 13


@pytest.mark.parametrize(
    "settings",
    [{}, {"packing": "packed"}, {"exclude_high_norm": 1.2}, {"forward_precision": "bfloat16"}],
    ids=str,
)
def test_live_streams_keep_the_contract(settings: dict[str, Any]) -> None:
    check_stream(lambda: stream_of(live(**settings)), batches=BATCHES)


@pytest.fixture(scope="module", params=STORAGE)
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return cached(tmp_path_factory.mktemp("cache"), dtype=request.param, tokens=3_000)


def sources(cache: Any) -> dict[str, ActivationSource]:
    settings = {"name": TEXT.name}
    return {
        "text": CachedActivations(cache, SITES, **settings),
        "shuffled": ShuffledActivations(cache, SITES, tokens=2_000, seed=1, **settings),
    }


@pytest.mark.parametrize("order", ["text", "shuffled"])
def test_cached_streams_keep_the_contract(cache: Any, order: str) -> None:
    check_stream(lambda: stream_of(sources(cache)[order]), batches=BATCHES)


class Forgetful(ActivationStream):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"next_batch": 0})


class Shared(ActivationStream):
    kept: Any = None

    def __next__(self):
        batch = super().__next__()
        if self.kept is None:
            self.kept = batch
        for site, rows in batch.values.items():
            self.kept.values[site].copy_(rows)
        self.kept.tokens.copy_(batch.tokens)
        return self.kept


class Half(ActivationStream):
    def __next__(self):
        batch = super().__next__()
        return batch._replace(values={site: rows.half() for site, rows in batch.values.items()})


class Uneven(ActivationStream):
    def __next__(self):
        batch = super().__next__()
        self._batch_tokens += 1
        return batch


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Forgetful, "a state that was loaded is the state"),
        (Shared, "no batch shares memory"),
        (Half, "values are float32"),
        (Uneven, "every batch has the same size"),
    ],
)
def test_a_stream_that_breaks_the_contract_is_caught(
    broken: type[ActivationStream], message: str
) -> None:
    with pytest.raises(DataError, match=f"breaks the contract: .*{message}"):
        check_stream(lambda: broken(live(), batch_tokens=64, fill_batches=11), batches=4)
