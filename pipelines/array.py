"""One task of a job array (Slurm, SGE, Kubernetes): its own part of a job's shards, without Beam.

    plan, made or found -> own shards without receipt -> is nothing left? then audit and completion

The tasks share the job's folder and nothing else. They may start together or one after the other,
be killed and repeated, and run twice at once. Whichever finds that every shard has a receipt
completes the output; two that find it at the same time write the same files.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.engines import LOCAL, EngineSettings
from pipelines.job import STOP, Engine, Job, OutputRefused, Result, ShardTask, try_shard
from pipelines.plan import Plan
from tokenizer import storage, tokens
from tokenizer.tokens import Receipt


@dataclass(frozen=True, kw_only=True)
class Part:
    """Every N-th shard of a job.

    Attributes:
        index: number of this part, from 0.
        size: N, into how many parts the shards are split.
    """
    index: int
    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.size:
            raise ValueError(f"the index of a task in an array of {self.size} is from 0 to "
                             f"{self.size - 1}, got {self.index}; where the scheduler counts from "
                             "1, subtract 1")

    def shards(self, num_shards: int) -> range:
        """The shards of this part."""
        return range(self.index, num_shards, self.size)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A job that is not complete: one part of it is done, others are not.

    Attributes:
        part: the one that is done.
        num_left: shards without a receipt, of ``num_shards`` in all.
    """
    part: Part
    num_left: int
    num_shards: int

    def __str__(self) -> str:
        return (f"task {self.part.index} of an array of {self.part.size} is done; {self.num_left} "
                f"of {self.num_shards} shards are left to the others")


def refuse_overwrite(overwrite: bool, url: str) -> None:
    """Refuse to start over with a part of a job.

    Raises:
        ValueError: ``overwrite`` is asked for.
    """
    if overwrite:
        raise ValueError("the tasks of an array cannot overwrite: each would remove what the "
                         f"others have made; remove {url} before they start")


def require_own_machine(settings: EngineSettings) -> None:
    """Refuse to hand a part of a job on to an engine elsewhere.

    Raises:
        ValueError: another engine than the local one is asked for, or flags for it.
    """
    if settings.engine != LOCAL or settings.beam_flags:
        asked = " ".join([settings.engine, *settings.beam_flags])
        raise ValueError("a task of an array makes its shards on its own machine, got the engine "
                         f"{asked}; leave it out, or leave the array to the engine")


class ArrayJob(Job):
    """The driver of one part of a job.

    Args:
        part: which shards it makes.
        engine: runs them; nothing for one after the other in this process.
    """

    def __init__(self, plan: Plan, task: ShardTask, part: Part, engine: Engine | None = None,
                 max_errors: int | float | None = None, unit: str = "images") -> None:
        super().__init__(plan, task, engine or self._run_here, max_errors, unit)
        self._part, self._keys = part, plan.keys
        self._shards = part.shards(plan.num_shards)

    def run_part(self, finish: Callable[[Sequence[Receipt]], Result],
                 read: Callable[[], Result]) -> Result | Unfinished:
        """Make the shards of this part, and complete the output when no other part is left.

        Args:
            finish: see `Job.run`.
            read: gives what ``finish`` would, where another task has completed the output.
        Returns:
            What is left to other tasks, or what ``finish`` or ``read`` gave.
        Raises:
            TooManyErrors: of this part, or of all, more inputs failed than allowed.
            JobFailed: shards of this part are left that could not be made.
            AuditFailure: what was made is not sound.
        """
        self._remove_unfinished()
        self._heed_stop()
        self._find_receipts()
        self._make_all()
        num_shards = self._plan.num_shards
        if left := num_shards - len(tokens.receipted_shards(self._plan.url)):
            return Unfinished(part=self._part, num_left=left, num_shards=num_shards)
        if storage.exists(storage.join(self._plan.url, tokens.SUCCESS)):
            return read()
        self._shards = range(num_shards)
        self._look()
        self._make_all()  # those whose receipts cannot be read
        return self._complete(finish)

    def _run_here(self, task: ShardTask, shards: Sequence[int]) -> None:
        """An engine without Beam."""
        for shard in shards:
            try:
                try_shard(task, shard)
            except OutputRefused:
                return

    def _look(self) -> None:
        self._receipts |= tokens.read_receipts(self._plan.url, self._plan.fingerprint,
                                               self._receipts, self._shards)

    def _num_inputs(self) -> int:
        if len(self._shards) == self._plan.num_shards:
            return super()._num_inputs()
        return sum(len(self._keys(shard)) for shard in self._shards)

    def _require_few_errors(self) -> None:
        super()._require_few_errors()
        self._heed_stop()

    def _heed_stop(self) -> None:
        """Where a task has asked all others to stop, stop for its reason, or forget it.

        Raises:
            TooManyErrors: of the whole job.
        """
        stop = storage.join(self._plan.url, STOP)
        if not storage.exists(stop):
            return
        own = self._receipts
        self._receipts = tokens.read_receipts(self._plan.url, self._plan.fingerprint)
        super()._require_few_errors()
        self._receipts = own
        storage.remove(stop)  # of an earlier run, with a lower limit
