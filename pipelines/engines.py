"""Engines: where the shards of a job run. Apache Beam carries them, in a graph of one shape.

    Create(shards) -> Reshuffle -> ParDo(MakeShard) -> CombineGlobally(AddTallies)

One element is one shard; nothing but shard numbers and sums passes between steps. Tagged outputs,
further sinks and output at the end of a bundle lose data on some runners while the job reports
success, so results lie in the job's folder, and the driver looks for them there.

To add an engine, subclass `BeamEngine` here and list it in `ENGINES`.
"""
import contextlib
import logging
import os
import shlex
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

# Beam warns, on import, of cloud libraries that it does not find; nobody asked for them.
_SILENCE = logging.NullHandler()
logging.getLogger().addHandler(_SILENCE)
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # noqa: E402
from apache_beam.runners.runner import PipelineRunner  # noqa: E402
from apache_beam.transforms.environments import SubprocessSDKEnvironment  # noqa: E402

from pipelines.job import OutputRefused, ShardTask, Tally, WorkerLost, try_shard  # noqa: E402

logging.getLogger().removeHandler(_SILENCE)

CHANNEL_CLOSED = "Channel closed prematurely"
"""What Beam says when a worker process has died."""


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(Tally)
class MakeShard(beam.DoFn):
    """Shard numbers to tallies; what is made lies in the job's folder."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._output_refused = False

    def setup(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # each shard will meet it, and leave word
            self._task.prepare()

    def process(self, shard: int) -> Iterator[Tally]:
        if self._output_refused:
            yield Tally(skipped=1)
            return
        try:
            yield try_shard(self._task, shard)
        except OutputRefused:
            self._output_refused = True
            yield Tally(failed=1)


class AddTallies(beam.CombineFn):
    """The sum of tallies."""

    def create_accumulator(self) -> Tally:
        return Tally()

    def add_input(self, mutable_accumulator: Tally, element: Tally) -> Tally:
        return mutable_accumulator + element

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        return sum(accumulators, Tally())

    def extract_output(self, accumulator: Tally) -> Tally:
        return accumulator


def build_graph(pipeline: beam.Pipeline, task: ShardTask, shards: Sequence[int]) -> None:
    """The graph of every job."""
    _ = (pipeline
         | "Shards" >> beam.Create(list(shards), reshuffle=False)
         | "Spread" >> beam.Reshuffle()
         | "Make" >> beam.ParDo(MakeShard(task))
         | "Sum" >> beam.CombineGlobally(AddTallies()).without_defaults())


class BeamEngine(ABC):
    """Runs tasks on a Beam runner; to call it is to run, see `pipelines.job.Engine`."""

    @abstractmethod
    def runner(self) -> PipelineRunner:
        """A new runner."""

    @abstractmethod
    def options(self) -> list[str]:
        """Beam's flags for it."""

    def __call__(self, task: ShardTask, shards: Sequence[int]) -> None:
        """Try each shard once.

        Raises:
            WorkerLost: a worker process died.
        """
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        pipeline = beam.Pipeline(runner=self.runner(), options=PipelineOptions(self.options()))
        build_graph(pipeline, task, shards)
        try:
            with _quiet_threads():
                pipeline.run().wait_until_finish()
        except RuntimeError as error:
            if _comes_from_interrupt(error):
                raise KeyboardInterrupt from None
            if CHANNEL_CLOSED in str(error):
                raise WorkerLost("a worker process died") from error
            raise


class LocalEngine(BeamEngine):
    """This machine: in this process, or in several, each with one encoder.

    Args:
        num_workers: processes that make shards at the same time; with one it is this process.
    """

    def __init__(self, num_workers: int = 1) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        self.num_workers = num_workers

    def runner(self) -> PipelineRunner:
        if self.num_workers == 1:
            return FnApiRunner()
        # "exec", so that the worker itself is the child of this process; its modules are ours.
        command = (f"PYTHONPATH={shlex.quote(os.pathsep.join(filter(None, sys.path)))} "
                   f"exec {shlex.quote(sys.executable)} -m pipelines.worker {os.getpid()}")
        return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))

    def options(self) -> list[str]:
        return [f"--direct_num_workers={self.num_workers}",
                "--default_sdk_harness_log_level=CRITICAL"]


ENGINES = {"local": LocalEngine}
"""Every engine by name."""


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep the traces of Beam's threads off the terminal; what they meet is raised here too."""
    usual = threading.excepthook
    threading.excepthook = lambda args: None
    try:
        yield
    finally:
        threading.excepthook = usual


def _comes_from_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands at the beginning of an error that Beam has wrapped."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
