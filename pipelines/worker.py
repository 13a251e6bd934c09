"""A worker process of the local engine: Beam's, quiet, and gone when its driver is gone.

Run as ``python -m pipelines.worker`` by `pipelines.engines.LocalEngine`.
"""
import logging
import os
import signal
import sys
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5


def main() -> None:
    """Serve the driver that started this process until it closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one encoder in each process, on one thread
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main
    sdk_worker_main.main(sys.argv)


def _follow(driver: int) -> None:
    """End this process as soon as its driver is no longer its parent."""
    while os.getppid() == driver:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


if __name__ == "__main__":
    main()
