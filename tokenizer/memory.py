"""Memory of the C library: whether what is freed stays with the process.

Feature maps of tens of MiB come and go with every layer. The GNU C library asks the system for each
one anew and gives it back at once, and the system clears every page of it again: up to a fifth of
the time of a convolution network on a CPU.
"""
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, as ``malloc.h`` of the GNU C library numbers them."""

KEPT_BYTES = 1 << 30
"""Blocks of less than this are kept for reuse."""

USUAL_BYTES = 1 << 17
"""As `KEPT_BYTES`, where the C library decides."""


def keep_freed_memory() -> bool:
    """Let this process keep the blocks it frees, and take the next ones from them.

    It then holds on to the most memory that it has needed at any time. Calling it again changes
    nothing.

    Returns:
        Whether the C library took the settings; others than the GNU one know none such.
    """
    return _keep_below(KEPT_BYTES)


def return_freed_memory() -> bool:
    """Let this process give back what it frees, as before `keep_freed_memory`.

    Returns:
        Whether the C library took the settings.
    """
    return _keep_below(USUAL_BYTES)


def _keep_below(num_bytes: int) -> bool:
    """Keep freed blocks of fewer bytes; whether the C library took the setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; or, on Windows, no such call
        return False
    settings = ((M_MMAP_THRESHOLD, num_bytes), (M_TRIM_THRESHOLD, num_bytes))
    return all([mallopt(parameter, value) == 1 for parameter, value in settings])
