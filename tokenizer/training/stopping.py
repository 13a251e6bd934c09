"""Stopping between two steps: Ctrl-C asks, training saves and then stops."""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked training to stop.

    Attributes:
        is_made: asked at least once.
    """

    def __init__(self) -> None:
        self.is_made = False

    def make(self) -> None:
        """Ask."""
        self.is_made = True


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one stops at once.

    In a thread other than the main one signals stay as they are, and nothing makes the request.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def on_signal(number: int, frame: FrameType | None) -> None:
        request.make()
        for each in signals:
            signal.signal(each, before[each])

    try:
        for number in signals:
            signal.signal(number, on_signal)
        yield request
    finally:
        for number in signals:
            signal.signal(number, before[number])
