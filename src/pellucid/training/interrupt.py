"""Stopping between two steps when the user or the system asks to."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS = 1.0
"""A signal this soon after the first is the same one: terminals and wrappers send it twice."""


class StopRequest:
    """Whether a stop has been asked for."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """While the context lasts, a first SIGINT or SIGTERM only asks to stop; a later one acts.

    Outside the main thread, where signals cannot be handled, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    first = 0.0
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if not request.asked:
            request.asked, first = True, time.monotonic()
            logger.warning("stopping after this step, to save a checkpoint; again stops at once")
        elif time.monotonic() - first > _REPEAT_SECONDS:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in _SIGNALS:
            signal.signal(number, ask)
        yield request
    finally:
        restore()
