"""A first signal asks, its echo is ignored, a later one acts."""

import signal
import threading

import pytest

from pellucid.training import interrupt
from pellucid.training.interrupt import graceful_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_and_its_echo_only_ask(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with graceful_stop() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop.asked
    assert signal.getsignal(number) is before


def test_a_later_signal_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_REPEAT_SECONDS", -1.0)
    # A shell that runs the tests in the background starts them with SIGINT ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), graceful_stop():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with graceful_stop() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
