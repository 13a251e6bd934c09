"""Devices that torch can compute on here, and their arithmetic."""
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

AUTO = "auto"
"""The device where none is asked for: cuda if there is one, else cpu."""


def usable_device(name: str) -> torch.device:
    """The device called ``name``, such as ``cpu`` or ``cuda:1``; of `AUTO`, cuda or else cpu.

    Raises:
        ValueError: this machine or this build of torch does not have it.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:  # torch raises either, by how it was built
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); give cpu, or a device that "
                         "this machine and this build of torch have") from error


class _SharedContext:
    """A context that the first of several threads enters for all, and the last one leaves."""

    def __init__(self, build: Callable[[], AbstractContextManager[None]]) -> None:
        self._build, self._lock, self._num_within = build, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_within:
                self._context = self._build()
                self._context.__enter__()
            self._num_within += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._num_within -= 1
            if not self._num_within:
                self._context.__exit__(None, None, None)


def full_float32() -> AbstractContextManager[None]:
    """Within, float32 is float32 on GPUs too, without TF32, and cuDNN's algorithms are fixed.

    Torch keeps this for the whole process, not for each thread: it stays until the last thread is
    out, and is then as it was before the first.
    """
    return _full_float32


@contextmanager
def _full_float32_of_the_process() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True,
                                        allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


_full_float32 = _SharedContext(_full_float32_of_the_process)
