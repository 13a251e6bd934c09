"""Progress bars and remarks on standard error, for as long as anybody reads it.

A terminal may be closed and a pipe's reader may end while work goes on; then it goes on unseen.
(Of a write that fails tqdm keeps its lock, and the next bar would wait for it for ever.)
"""
import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class StandardError:
    """`sys.stderr`, whoever that is at the moment; to write to nobody is no error."""

    def write(self, text: str) -> int:
        """Write what can be written, lines at once; returns the length of the text."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the file was closed
            sys.stderr.write(text)
            if text.endswith("\n"):
                sys.stderr.flush()
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def progress_bar(items: Iterable[Any] | None = None, **settings: Any) -> "tqdm[Any]":
    """A bar of tqdm's, with its settings, on standard error; over ``items``, or moved by hand."""
    bar: tqdm[Any] = tqdm(items, file=StandardError(), **settings)
    return bar


def remark(text: str) -> None:
    """A line of its own among the bars."""
    tqdm.write(text, file=StandardError())
