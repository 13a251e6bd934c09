"""How many pixels an image may have: the limit against files that unpack to gigabytes.

A job may have a limit of its own. Jobs that share a process, on threads of their own, each keep
theirs, and what they say of an image does not depend on the others.
"""
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from PIL import Image

MAX_PIXELS = 178_000_000
"""Pixels beyond which an image is refused before it is decoded, where `at_most` says no other."""

PILLOW_PIXELS = Image.MAX_IMAGE_PIXELS or MAX_PIXELS
"""Pillow warns beyond so many, and refuses twice as many by itself."""

_LIMIT: ContextVar[int | None] = ContextVar("max_pixels", default=None)
_RAISING = threading.Lock()


@contextmanager
def at_most(max_pixels: int | None) -> Iterator[None]:
    """In the block, on this thread, images of more pixels are refused; `MAX_PIXELS` for nothing.

    Pillow's own limit, which is that of the process, is raised where it is lower, and stays so.
    """
    with _RAISING:
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, -(-(max_pixels or 0) // 2))
    token = _LIMIT.set(max_pixels)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def pixel_limit() -> int:
    """Pixels beyond which an image is refused on this thread."""
    limit = _LIMIT.get()
    return MAX_PIXELS if limit is None else limit


def refuse_as_pillow(width: int, height: int) -> None:
    """Refuse what Pillow itself would refuse if no other job of this process had raised its limit.

    Raises:
        DecompressionBombError: the image has that many pixels.
    """
    if width * height > max(2 * PILLOW_PIXELS, pixel_limit()):
        raise Image.DecompressionBombError
