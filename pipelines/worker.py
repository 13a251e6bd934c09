"""A worker process of the local engine: Beam's, quiet, and gone when its driver is gone.

Run as ``python -m pipelines.worker DRIVER`` by `pipelines.engines.LocalEngine`, with the process
number of the driver, which must be its parent.
"""
import ctypes
import logging
import os
import signal
import sys
import threading
import time

CHANNEL_CLOSED = "Channel closed prematurely"
"""What Beam says in the driver when a worker process has died."""

SECONDS_BETWEEN_LOOKS = 0.2

PR_SET_PDEATHSIG = 1
"""Linux, ``prctl(2)``: the signal that a process is sent when the thread that started it ends."""


def main() -> None:
    """Serve the driver that started this process until it closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one encoder in each process, on one thread
    die_with(int(sys.argv[1]))
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main
    sdk_worker_main.main(sys.argv[:1])


def die_with(driver: int) -> None:
    """End this process when its driver ends, however that ends.

    On Linux the kernel does so at once: Beam starts a worker from a thread that waits for it, and
    which therefore ends only with the driver. Elsewhere a thread looks every so often, and can be
    late while other threads keep it waiting.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:  # it has ended before this was asked for
        os._exit(1)
    threading.Thread(target=_follow, args=(driver,), daemon=True).start()


def _follow(driver: int) -> None:
    """End this process as soon as its driver is no longer its parent."""
    while os.getppid() == driver:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


if __name__ == "__main__":
    main()
