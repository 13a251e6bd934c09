"""The one graph of every job on Apache Beam.

    Create(shards) -> Reshuffle -> ParDo(MakeShard) -> CombineGlobally(AddTallies)

One element is one shard; nothing but shard numbers and sums passes between steps. Tagged outputs,
further sinks and output at the end of a bundle lose data on some runners while the job reports
success, so results lie in the job's folder, and the driver looks for them there.
"""
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence

# Beam warns, on import, of cloud libraries that it does not find; nobody asked for them.
_SILENCE = logging.NullHandler()
logging.getLogger().addHandler(_SILENCE)
import apache_beam as beam  # noqa: E402

from pipelines.job import OutputRefused, ShardTask, Tally, try_shard  # noqa: E402

logging.getLogger().removeHandler(_SILENCE)


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
        yield Tally(skipped=1) if self._output_refused else self._make(shard)

    def _make(self, shard: int) -> Tally:
        try:
            return try_shard(self._task, shard)
        except OutputRefused:
            self._output_refused = True
            return Tally(failed=1)


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
