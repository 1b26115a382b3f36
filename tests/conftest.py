"""Settings of the whole test suite."""

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Machines differ in speed: no test depends on time. The same examples on every run.
settings.register_profile("pellucid", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pellucid")


@pytest.fixture(autouse=True)
def process_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command line does to its process, and keep it off the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = logging.getLogger()
    handlers, level, threads = root.handlers[:], root.level, torch.get_num_threads()
    with warnings.catch_warnings():
        yield
    root.handlers[:] = handlers
    root.setLevel(level)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
