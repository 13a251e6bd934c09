"""Progress bars and remarks on standard error, for as long as anybody reads it.

A terminal may be closed and a pipe's reader may end while work goes on; then it goes on unseen.
(Of a write that fails tqdm keeps its lock, and the next bar would wait for it for ever.)

Where standard error is no terminal but a log, states of a bar are lines, which collectors of logs
pass on at once, and few: see `SECONDS_BETWEEN_LINES`.
"""
import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20.0
"""Between the states of a bar in a log; on a terminal tqdm's own tenth of a second."""

UP = "\x1b[A"
"""By which tqdm moves a line up, to the bar above."""


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
        return sys.stderr.isatty()
    return False


class StandardError:
    """`sys.stderr`, whoever that is at the moment; to write to nobody is no error."""

    def __init__(self) -> None:
        self._is_line_open = False

    def write(self, text: str) -> int:
        """Write what can be written, lines at once; returns the length of the text."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the file was closed
            shown = text if is_terminal() else self._as_lines(text)
            sys.stderr.write(shown)
            if shown.endswith("\n"):
                sys.stderr.flush()
        return len(text)

    def _as_lines(self, text: str) -> str:
        """What tqdm writes over the line of a terminal as a line, and nothing of what clears it."""
        text = text.replace(UP, "")
        if not text.startswith("\r"):
            is_needed = text.strip("\n") or self._is_line_open
            self._is_line_open = bool(is_needed) and not text.endswith("\n")
            return text if is_needed else ""
        end = "\n" if self._is_line_open else ""
        self._is_line_open = False
        return f"{end}{state}\n" if (state := text.strip()) else end

    def flush(self) -> None:
        """Pass on what was written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def progress_bar(items: Iterable[Any] | None = None, **settings: Any) -> "tqdm[Any]":
    """A bar of tqdm's, with its settings, on standard error; over ``items``, or moved by hand."""
    usual = {} if is_terminal() else {"mininterval": SECONDS_BETWEEN_LINES, "ascii": True}
    bar: tqdm[Any] = tqdm(items, file=StandardError(), **{**usual, **settings})
    return bar


def remark(text: str) -> None:
    """A line of its own among the bars."""
    tqdm.write(text, file=StandardError())
