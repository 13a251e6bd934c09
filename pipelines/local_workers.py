"""Worker processes of the local engine, for Beam's local runner, which does not notice their death.

That runner waits for what it has asked of a worker, and learns that one has died from its data
connection alone: not where it died before that stood, nor where it had sent all its data. Here a
thread waits for the end of each process, and answers what is asked of it from then on.
"""
import contextlib
import threading

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)

from pipelines.worker import CHANNEL_CLOSED

SECONDS_BETWEEN_ANSWERS = 0.5


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WatchedWorker(SubprocessSdkWorkerHandler):
    """A worker process, watched until its handler is closed; takes the place of Beam's own."""

    def start_worker(self) -> None:
        self._is_closed = threading.Event()
        super().start_worker()
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def stop_worker(self) -> None:
        super().stop_worker()
        self._is_closed.set()

    def _watch(self) -> None:
        """Once the process has ended, end whatever waits for it, and whatever will."""
        self.worker_thread.join()
        self.data_conn.close()
        while not self._is_closed.wait(SECONDS_BETWEEN_ANSWERS):
            with contextlib.suppress(RuntimeError):  # something was asked meanwhile: next time
                self.control_conn.abort(RuntimeError(CHANNEL_CLOSED))
