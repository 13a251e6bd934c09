"""Real clusters on loopback: a Dask scheduler with workers; a Beam job service with a pool."""
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.worker import PR_SET_PDEATHSIG

ROOT = Path(__file__).parent.parent
SECONDS_TO_START = 300


@dataclass(frozen=True)
class DaskCluster:
    """A Dask cluster; workers that are killed are replaced.

    Attributes:
        address: of its scheduler, ``HOST:PORT``.
    """
    address: str

    @property
    def engine(self) -> str:
        """What ``--engine`` takes for it."""
        return f"dask://{self.address}"

    def workers(self, num_workers: int = 2) -> list[int]:
        """Numbers of the processes that make shards, once there are so many."""
        from distributed import Client
        for _ in range(10):
            with (contextlib.suppress(OSError, TimeoutError),  # one of them ends just now
                  Client(f"tcp://{self.address}", timeout=SECONDS_TO_START,
                         set_as_default=False) as client):
                client.wait_for_workers(num_workers, timeout=SECONDS_TO_START)
                return sorted(client.run(os.getpid).values())
        raise TimeoutError("the workers do not answer")


@dataclass(frozen=True)
class JobService:
    """Beam's local job service, and a pool that starts workers when it is asked to.

    Attributes:
        address: of the service; ``pool`` that of the pool, both ``HOST:PORT``.
    """
    address: str
    pool: str

    @property
    def engine(self) -> str:
        """What ``--engine`` takes for it."""
        return f"portable://{self.address}"

    @property
    def flags(self) -> tuple[str, str]:
        """Beam's flags by which a job uses the pool's workers."""
        return ("--environment_type=EXTERNAL", f"--environment_config={self.pool}")


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[DaskCluster]:
    """A scheduler and two workers with one thread each, for as long as the block lasts."""
    told = folder / "scheduler.json"
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(folder, "dask", "scheduler", "--host", "127.0.0.1", "--port",
                                    "0", "--no-dashboard", "--scheduler-file", told))
        wait_until(told.exists)
        address = json.loads(told.read_text())["address"]
        for _ in range(2):
            stack.enter_context(running(
                folder, "dask", "worker", address, "--nworkers", "1", "--nthreads", "1",
                "--no-dashboard", "--local-directory", folder, "--death-timeout", "60"))
        cluster = DaskCluster(address.removeprefix("tcp://"))
        cluster.workers()
        yield cluster


@contextlib.contextmanager
def job_service(folder: Path) -> Iterator[JobService]:
    """A job service and a worker pool, for as long as the block lasts."""
    told, pool = folder / "port", free_port()
    with (running(folder, "apache_beam.runners.portability.local_job_service_main", "--port", "0",
                  "--port_file", told, "--staging_dir", folder),
          running(folder, "apache_beam.runners.worker.worker_pool_main", "--service_port", pool)):
        wait_until(told.exists)
        wait_until(lambda: answers(pool))
        yield JobService(f"127.0.0.1:{told.read_text()}", f"127.0.0.1:{pool}")


@contextlib.contextmanager
def running(folder: Path, module: str, *arguments: object) -> Iterator[None]:
    """A module as a process in ``folder``, ended after the block with all that it has started."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_tests,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_with_tests() -> None:
    """Have Linux end this process when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something to come about that takes a while on a busy machine.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + SECONDS_TO_START
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("a server of the tests does not start")
        time.sleep(0.05)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
