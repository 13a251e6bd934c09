"""Engines: where the shards of a job run. Apache Beam carries them, in the graph of `graph.py`.

    local                    this machine, in this process or in several
    dask://HOST:PORT         a Dask cluster, by its scheduler
    portable://HOST:PORT     a job service of Beam's portability framework
    beam                     whatever Beam's own flags name: Flink, Spark, ...

To add an engine, subclass `BeamEngine` here and list it in `ENGINES`. Beam is loaded only when an
engine runs, so that settings can be checked, and a finished job be looked through, without it.
"""
import contextlib
import dataclasses
import logging
import os
import re
import shlex
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pipelines.job import ShardTask, WorkerLost
from pipelines.worker import CHANNEL_CLOSED

SECONDS_TO_ANSWER = 30
"""How long a scheduler or job service may take to answer."""

SECONDS_OF_A_JOB = 365 * 86400
"""How long Beam listens to one run; its own limit of a minute ends long runs of some services."""


LOCAL = "local"
"""The engine where none is asked for."""


class EngineUnreachable(OSError):
    """Nothing answers where an engine was said to be, or what it needs is not installed."""


@dataclass(frozen=True, kw_only=True)
class BeamEngine(ABC):
    """Runs tasks on a Beam runner; to call it is to run, see `pipelines.job.Engine`.

    Attributes:
        address: ``HOST:PORT`` of the engine; empty for one that has none.
        num_workers: processes that make shards at the same time, where the engine starts them.
        flags: further flags of Beam's, which count before the engine's own.
        is_elsewhere: whether its workers may run on other machines.
        question: what to ask oneself when nothing answers at the address.
    """
    name: ClassVar[str]
    form: ClassVar[str]
    is_elsewhere: ClassVar[bool] = True
    question: ClassVar[str] = ""
    address: str = ""
    num_workers: int = 1
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}")
        if self.num_workers > 1 and not isinstance(self, LocalEngine):
            raise ValueError(f"the engine {self.name} has workers of its own, got num_workers "
                             f"{self.num_workers}; leave it out")
        if ("://" in self.form) != bool(self.address):
            raise ValueError(f"the engine {self.name} is given as {self.form}, got "
                             f"{self.address or self.name!r}")
        if self.address and not re.fullmatch(r"([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}", self.address):
            raise ValueError(f"the address of an engine is HOST:PORT, got {self.address!r}")

    @abstractmethod
    def runner(self) -> Any:
        """A new runner of Beam's, or nothing where flags name it."""

    @abstractmethod
    def options(self) -> list[str]:
        """Beam's flags for it."""

    def require_reachable(self) -> None:
        """Make sure that there is an engine.

        Raises:
            EngineUnreachable: there is none.
        """
        if self.address:
            _require_answer(self.address, self.question)

    def loss(self, error: Exception) -> str | None:
        """In words, what of the engine was lost when a run ended in this error; nothing if none."""
        return None

    def wait(self, result: Any) -> None:
        """Wait until a run has ended."""
        result.wait_until_finish()

    def __call__(self, task: ShardTask, shards: Sequence[int]) -> None:
        """Try each shard once.

        Raises:
            EngineUnreachable: there is no such engine; nothing was tried.
            WorkerLost: workers died, or the connection to them was lost.
        """
        self.require_reachable()
        try:
            with _quiet():
                self.wait(self.pipeline(task, shards).run())
        except Exception as error:
            if (interrupt := _interrupt_behind(error)) is not None:
                raise interrupt from None
            if words := self.loss(error):
                raise WorkerLost(words) from error
            raise

    def pipeline(self, task: ShardTask, shards: Sequence[int]) -> Any:
        """The ``beam.Pipeline`` that tries each shard once.

        Raises:
            ValueError: a flag has a value that it cannot have, or is not known; of a runner with a
                job service, the latter is found when it runs.
        """
        from pipelines.beam_flags import KnownFlags, asks_a_service, read_flags, require_known
        from pipelines.graph import beam, build_graph
        flags = [*self.options(), *self.flags]
        runner = self.runner()  # loaded, its flags are known
        read_flags(flags)
        pipeline = beam.Pipeline(runner=runner, options=KnownFlags(flags))
        if not asks_a_service(pipeline.runner):
            require_known(flags)
        build_graph(pipeline, task, shards)
        return pipeline


class LocalEngine(BeamEngine):
    """This machine: in this process, or in several, each with one encoder."""
    name = form = LOCAL
    is_elsewhere = False

    def runner(self) -> Any:
        # By its class: the name DirectRunner stands for another one, which may download a program.
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import SubprocessSDKEnvironment
        if self.num_workers == 1:
            return FnApiRunner()
        import pipelines.local_workers  # noqa: F401  which takes the place of the handler of Beam
        # "exec", so that the worker itself is the child of this process; its modules are ours.
        command = (f"PYTHONPATH={shlex.quote(os.pathsep.join(filter(None, sys.path)))} "
                   f"exec {shlex.quote(sys.executable)} -m pipelines.worker {os.getpid()}")
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))

    def options(self) -> list[str]:
        return [f"--direct_num_workers={self.num_workers}",
                "--default_sdk_harness_log_level=CRITICAL"]

    def pipeline(self, task: ShardTask, shards: Sequence[int]) -> Any:
        needed = dataclasses.replace(self, num_workers=min(self.num_workers, max(1, len(shards))))
        return BeamEngine.pipeline(needed, task, shards)

    def loss(self, error: Exception) -> str | None:
        if CHANNEL_CLOSED not in str(error):
            return None
        return "the worker process died, as it does when memory runs out; use fewer workers"


class DaskEngine(BeamEngine):
    """A Dask cluster; one shard is one task of it."""
    name = "dask"
    form = "dask://HOST:PORT"
    question = "is a Dask scheduler running there"

    def runner(self) -> Any:
        from apache_beam.runners.dask.dask_runner import DaskRunner
        return DaskRunner()

    def options(self) -> list[str]:
        # By default 128 shards would be one task, and a few workers would make all of them.
        return [f"--dask_client_address=tcp://{self.address}", "--dask_partition_size=1",
                f"--dask_connection_timeout={SECONDS_TO_ANSWER}"]

    def require_reachable(self) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise EngineUnreachable("the engine dask needs more packages: pip install "
                                    f"'img2tokens[dask]' ({error})") from error
        super().require_reachable()

    def loss(self, error: Exception) -> str | None:
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker
        if isinstance(error, KilledWorker):
            return "workers of the Dask cluster died over and over, as when memory runs out"
        if isinstance(error, ImportError) or "deserialization" in str(error):
            return (f"the Dask cluster at {self.address} does not know what this process knows: "
                    f"install the same packages for its scheduler and workers ({error})")
        if isinstance(error, OSError | TimeoutError | CancelledError):
            reason = str(error) or type(error).__name__
            return f"the Dask scheduler at {self.address} was lost: {reason}"
        return None

    def wait(self, result: Any) -> None:
        with contextlib.closing(result.client):  # which ends what the cluster still does for it
            super().wait(result)


class PortableEngine(BeamEngine):
    """A job service of Beam's portability framework; its workers are those that the flags name.

    By default this process is the worker, which suits a job service on the same machine.
    """
    name = "portable"
    form = "portable://HOST:PORT"
    question = "is a Beam job service running there"

    def runner(self) -> Any:
        from apache_beam.runners.portability.portable_runner import PortableRunner
        return PortableRunner()

    def options(self) -> list[str]:
        return [f"--job_endpoint={self.address}", f"--job_server_timeout={SECONDS_OF_A_JOB}",
                "--environment_type=LOOPBACK", "--default_sdk_harness_log_level=CRITICAL",
                "--experiments=disable_logging_submission_environment"]  # it takes seconds

    def require_reachable(self) -> None:
        super().require_reachable()
        import grpc
        with grpc.insecure_channel(self.address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=SECONDS_TO_ANSWER)
            except grpc.FutureTimeoutError as error:
                raise EngineUnreachable(f"{self.address} does not speak gRPC: "
                                        f"{self.question}?") from error

    def loss(self, error: Exception) -> str | None:
        import grpc
        if isinstance(error, grpc.RpcError):
            return f"the job service at {self.address} was lost: {error.code().name}"
        return _last_line(error) if isinstance(error, RuntimeError) else None

    def wait(self, result: Any) -> None:
        try:
            super().wait(result)
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # the service may be gone
                result.cancel()
            raise


class FlagsEngine(BeamEngine):
    """The runner that Beam's own flags name."""
    name = form = "beam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(flag.partition("=")[0] == "--runner" for flag in self.flags):
            raise ValueError("the engine beam needs the flags of a runner, for example "
                             "--engine beam -- --runner=FlinkRunner --flink_master=HOST:8081")

    def runner(self) -> Any:
        return None

    def options(self) -> list[str]:
        return []

    def loss(self, error: Exception) -> str | None:
        return _last_line(error) if isinstance(error, RuntimeError) else None


ENGINES: Mapping[str, type[BeamEngine]] = {
    engine.name: engine for engine in (LocalEngine, DaskEngine, PortableEngine, FlagsEngine)}
"""Every engine by name."""


class EngineSettings(Protocol):
    """The part of a job's settings that says where it runs.

    Attributes:
        engine: a form of one of `ENGINES`.
        num_workers: processes that make shards at the same time, for the local engine.
        beam_flags: further flags of Beam's.
    """
    @property
    def engine(self) -> str: ...
    @property
    def num_workers(self) -> int: ...
    @property
    def beam_flags(self) -> tuple[str, ...]: ...


def engine_of(settings: EngineSettings) -> BeamEngine:
    """The engine that a job's settings ask for.

    Raises:
        ValueError: there is no such engine, or it does not go with the other settings.
    """
    name, _, address = settings.engine.partition("://")
    if name not in ENGINES:
        forms = ", ".join(engine.form for engine in ENGINES.values())
        raise ValueError(f"an engine is one of {forms}; got {settings.engine!r}")
    if settings.beam_flags and not settings.beam_flags[0].startswith("--"):
        raise ValueError(f"{settings.beam_flags[0]!r} is no flag of Beam's, which begin with --")
    return ENGINES[name](address=address, num_workers=settings.num_workers,
                         flags=settings.beam_flags)


def require_absolute(engine: BeamEngine, urls: Iterable[str]) -> None:
    """Refuse folders that workers elsewhere would look for in another place.

    Raises:
        ValueError: the engine has workers elsewhere, and a path is relative.
    """
    for url in urls if engine.is_elsewhere else ():
        if not (os.path.isabs(url) or re.match(r"[\w+-]+:", url)):  # a URL
            raise ValueError(f"{url} is relative to the folder of this process, which workers of "
                             f"the engine {engine.name} do not share; give {os.path.abspath(url)}")


def _require_answer(address: str, question: str) -> None:
    """Make sure that something listens at an address.

    Raises:
        EngineUnreachable: nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EngineUnreachable(f"{address} does not answer ({reason}): {question}?") from error


def _last_line(error: Exception) -> str:
    """The last line of an error, where Beam puts what a remote traceback comes to."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"the engine gave up: {lines[-1] if lines else type(error).__name__}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Beam's log and the traces of its threads off the terminal; errors are raised here too.
    """
    for name in ("apache_beam", "distributed"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = threading.excepthook
    threading.excepthook = lambda args: None
    try:
        yield
    finally:
        threading.excepthook = usual


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C at the beginning of an error that Beam has wrapped, if there is one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
