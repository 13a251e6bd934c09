"""Signals become requests, once, in the main thread."""
import os
import signal
import threading

import pytest

from tokenizer.training.stopping import stop_request


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    with stop_request() as request:
        assert not request.is_made
        os.kill(os.getpid(), number)
        assert request.is_made


def test_the_second_ctrl_c_stops_at_once() -> None:
    with stop_request(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_request():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_leaves_signals_alone() -> None:
    seen = []

    def work() -> None:
        with stop_request() as request:
            seen.append((request.is_made, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]
