"""A job over the shards of a plan: make what has no receipt, show how it goes, try failures again.

Nothing here knows what a shard becomes, nor which engine runs it. A `ShardTask` makes one shard and
commits it; the receipts it leaves in the job's folder are the only record of what is done, so the
same command goes on after any kind of stop.

    _receipts/00000.json   one for each finished shard; see `tokenizer.receipts`
    _failed/00000.json     why a shard failed as a whole; kept only while the job is unfinished
    _failed/stop           asks workers to begin no further shard: too many inputs failed
"""
import contextlib
import itertools
import json
import posixpath
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

from pipelines.limits import ErrorLimit
from pipelines.plan import Plan, require_current
from pipelines.progress import Progress
from tokenizer import storage, tokens
from tokenizer.receipts import pack_receipts, remove_receipts
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt

Result = TypeVar("Result")
"""What completing a job gives."""

FAILED = "_failed"
STOP = f"{FAILED}/stop"

PAUSES = (1.0, 5.0)
"""Seconds to wait before failed shards are tried again; so often are they tried again."""

SHARE_WORTH_A_TRY = 0.1
"""Of the shards that were left; where so many were made before workers were lost, the tries begin
anew. So a job of a week outlives workers that die now and then, and a shard that kills its worker
each time ends it soon."""

SECONDS_BETWEEN_LOOKS = 0.5
"""How often the driver looks for new receipts, unless looking itself takes long."""


WORDS_TO_READ = 1000
"""How many failed shards are asked for their reason when a job ends."""


class OutputRefused(OSError):
    """The store refuses what a shard has to write; the next shards would fare no better."""


class WorkerLost(OSError):
    """Workers died, or the connection to them was lost; the message says so to people."""


class JobFailed(OSError):
    """Shards are left that could not be made; the finished ones are kept."""


class TooManyErrors(ValueError):
    """More inputs failed than the job allows; the finished shards are kept."""


def was_stopped(url: str) -> bool:
    """Whether the last run of a job ended because too many inputs failed."""
    return storage.exists(storage.join(url, STOP))


class ShardTask(ABC):
    """Makes shards, one at a time. Picklable: what is heavy is loaded by `prepare`."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Folder of the job."""

    @abstractmethod
    def prepare(self) -> None:
        """Load what every shard needs; a second call costs nothing.

        Raises:
            OSError, ValueError: it cannot be loaded here.
        """

    @abstractmethod
    def run(self, shard: int) -> Receipt:
        """Make one shard and commit it; to do it twice does no harm.

        Raises:
            OutputRefused: the store takes no more.
            OSError, ValueError: the shard as a whole cannot be made now.
        """


class Work(Protocol):
    """What a job has to do, as its driver sees it: a `Plan`, or what follows from a request.

    Attributes:
        url: folder of the job; ``corpus_url`` that of the corpus it makes, or adds to.
        fingerprint: of its receipts.
        num_shards: shards; ``num_inputs`` what they are made of.
        delta: number of the delta of a corpus that it makes, or 0.
    """
    @property
    def url(self) -> str: ...
    @property
    def corpus_url(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def num_shards(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def delta(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of some shards.

    Attributes:
        done: shards made; ``failed`` those that could not be; ``skipped`` those not begun.
        rows: rows of the shards made; ``dead_letters`` their inputs that failed.
    """
    done: int = 0
    failed: int = 0
    skipped: int = 0
    rows: int = 0
    dead_letters: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(done=self.done + other.done, failed=self.failed + other.failed,
                     skipped=self.skipped + other.skipped, rows=self.rows + other.rows,
                     dead_letters=self.dead_letters + other.dead_letters)


Engine = Callable[[ShardTask, Sequence[int]], None]
"""Runs a task over shards and returns when each was tried once; see `pipelines.engines`."""


def try_shard(task: ShardTask, shard: int) -> Tally:
    """Make one shard; when it fails as a whole, leave word of it in the job's folder.

    One that is there is left: another driver may have made it since this one looked, or this one
    before its engine began a bundle of shards once more.

    Raises:
        OutputRefused: the store takes no more; word was left if it took that.
    """
    try:
        if storage.exists(storage.join(task.url, STOP)):
            return Tally(skipped=1)
        receipt = tokens.read_receipt(task.url, shard, fingerprint=None)
        if receipt is None:
            task.prepare()
            receipt = task.run(shard)
    except (OSError, ValueError) as error:
        text = json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n"
        with contextlib.suppress(OSError):
            storage.write_bytes(storage.join(task.url, _failure_name(shard)), text.encode())
        if isinstance(error, OutputRefused):
            raise
        return Tally(failed=1)
    return Tally(done=1, rows=receipt.entry.rows, dead_letters=receipt.num_dead_letters)


def commit(plan: Plan, shard: int, rows: pa.Table, dead: Sequence[DeadLetter],
           num_crops: int = 1) -> Receipt:
    """Commit one shard of a job; see `tokens.commit_shard`. Of two attempts the first one counts.

    Raises:
        OutputRefused: the store takes no more.
        PlanMismatch: another job has started over in this folder.
    """
    require_current(plan)
    try:
        standing = tokens.read_receipt(plan.url, shard, plan.fingerprint)
        return standing or tokens.commit_shard(plan.corpus_url, shard, plan.num_shards,
                                               plan.fingerprint, rows, dead, num_crops, plan.delta)
    except OSError as error:
        raise OutputRefused(f"{plan.url} takes no data: {error.strerror or error}") from error


class Job:
    """The driver of one job.

    Args:
        plan: what there is to do, a `Plan` or other `Work`.
        task: makes its shards.
        engine: runs the task.
        max_errors: how many inputs may fail, as a number or a share; see `ErrorLimit`.
        unit: what an input is called, in the plural.
    """

    def __init__(self, plan: Work, task: ShardTask, engine: Engine,
                 max_errors: int | float | None = None, unit: str = "images") -> None:
        self._plan = plan
        self._task = task
        self._engine = engine
        self._limit = ErrorLimit(max_errors, may_be_all=bool(plan.delta))
        self._unit = unit
        self._receipts: dict[int, Receipt] = {}
        self._shards: Sequence[int] = range(plan.num_shards)
        self._lost = ""

    def run(self, finish: Callable[[Sequence[Receipt]], Result]) -> Result:
        """Make every shard that has no receipt, then complete the output.

        Args:
            finish: checks and completes the output; shards that an `AuditFailure` names are made
                again, once.
        Returns:
            What ``finish`` gave.
        Raises:
            TooManyErrors: more inputs failed than allowed, or all of them.
            JobFailed: shards are left that could not be made.
            AuditFailure: what was made is not sound.
        """
        storage.remove(storage.join(self._plan.url, FAILED))
        self._remove_unfinished()
        self._find_receipts()
        self._make_all()
        return self._complete(finish)

    def _find_receipts(self) -> None:
        """Read what receipts there are; where some were lost, the output is complete no more."""
        # Asked first: other processes may finish the job while the receipts are read.
        was_complete = storage.exists(storage.join(self._plan.url, tokens.SUCCESS))
        self._look()
        if was_complete and self._pending():
            storage.remove(storage.join(self._plan.url, tokens.SUCCESS))
        self._pack()

    def _pack(self) -> None:
        """Leave the receipts of a very large job in few files."""
        pack_receipts(self._plan.url, self._receipts, self._plan.num_shards)

    def _complete(self, finish: Callable[[Sequence[Receipt]], Result]) -> Result:
        """Audit and complete the output, once more after making again what is damaged."""
        try:
            result = finish(list(self._receipts.values()))
        except AuditFailure as failure:
            if not failure.shards:
                raise
            storage.remove(storage.join(self._plan.url, tokens.SUCCESS))
            remove_receipts(self._plan.url, failure.shards)
            for shard in failure.shards:
                del self._receipts[shard]
            self._make_all()
            result = finish(list(self._receipts.values()))
        self._pack()
        storage.remove(storage.join(self._plan.url, FAILED))
        return result

    def _make_all(self) -> None:
        """Run the shards without receipts, and again those that fail."""
        with Progress(self._plan.url, self._num_inputs(), len(self._shards), self._unit) as bar:
            bar.show(self._receipts.values())
            pauses = [0.0, *PAUSES]
            while pauses and (pending := self._pending()):
                time.sleep(pauses.pop(0))
                with self._watched(bar):
                    lost = self._try(pending)
                self._look()
                bar.show(self._receipts.values(), at_once=True)
                self._require_few_errors()
                num_made = len(pending) - len(self._pending())
                if lost and num_made >= SHARE_WORTH_A_TRY * len(pending):
                    pauses = [*PAUSES]
        self._remove_unfinished()
        if pending := self._pending():
            raise JobFailed(self._why(pending))
        self._require_few_errors()

    def _try(self, shards: Sequence[int]) -> bool:
        """Have the engine try these shards once; whether workers were lost over it."""
        try:
            self._engine(self._task, shards)
        except WorkerLost as lost:
            self._lost = str(lost)
            return True
        return False

    def _pending(self) -> list[int]:
        return [shard for shard in self._shards if shard not in self._receipts]

    def _num_inputs(self) -> int:
        """Inputs of the shards that this driver sees to."""
        return self._plan.num_inputs

    def _look(self) -> None:
        """Read the receipts that are new."""
        self._receipts |= tokens.read_receipts(self._plan.url, self._plan.fingerprint,
                                               self._receipts)

    @contextlib.contextmanager
    def _watched(self, bar: Progress) -> Iterator[None]:
        """While the block runs, show new receipts, and stop the workers when too much fails."""
        ended = threading.Event()

        def watch() -> None:
            pause = SECONDS_BETWEEN_LOOKS
            while not ended.wait(pause):
                began = time.monotonic()
                with contextlib.suppress(OSError, ValueError):  # the next look may fare better
                    self._look()
                    bar.show(self._receipts.values())
                    if self._too_many_errors():
                        storage.write_bytes(storage.join(self._plan.url, STOP), b"")
                pause = max(SECONDS_BETWEEN_LOOKS, 10 * (time.monotonic() - began))
        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _reasons(self) -> Counter[str]:
        reasons: Counter[str] = Counter()
        for receipt in self._receipts.values():
            reasons.update(receipt.dead_letters)
        return reasons

    def _too_many_errors(self) -> bool:
        return self._limit.is_exceeded(self._reasons().total(), self._plan.num_inputs)

    def _require_few_errors(self) -> None:
        if not self._too_many_errors():
            return
        with contextlib.suppress(OSError):
            storage.write_bytes(storage.join(self._plan.url, STOP), b"")
        reasons = self._reasons()
        limit, remedy = "all that there are", "mend the inputs and run with --overwrite"
        if self._plan.delta:
            remedy = "mend the inputs and run `img2tokens retry`"
        if reasons.total() < self._plan.num_inputs or self._plan.delta:
            allowed = self._limit.in_words(self._plan.num_inputs)
            limit = f"more than the {allowed} that --max-errors allows"
            remedy = f"run again with a larger --max-errors, or {remedy}"
        kinds = ", ".join(f"{count} {error}" for error, count in reasons.most_common(5))
        raise TooManyErrors(
            f"{reasons.total()} of {self._plan.num_inputs} {self._unit} failed, {limit} ({kinds})"
            f"{self._example()}; {storage.join(self._plan.url, tokens.DEAD)} says which and why, "
            f"and finished shards are kept: {remedy}")

    def _example(self) -> str:
        """The first input that failed, and why, in words; nothing where that cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            for _, receipt in sorted(self._receipts.items()):
                if receipt.dead_file is not None:
                    letter = tokens.read_dead_letters(self._plan.corpus_url, receipt.dead_file)[0]
                    return f", such as {letter.key}: {letter.message}"
        return ""

    def _why(self, pending: Sequence[int]) -> str:
        """Why shards are left, by the word that they left."""
        reasons: Counter[str] = Counter()
        left = storage.list_files(storage.join(self._plan.url, FAILED))
        names = (name for name in map(_failure_name, pending) if posixpath.basename(name) in left)
        for name in itertools.islice(names, WORDS_TO_READ):
            # Another driver that begins removes what is left of earlier ones.
            if word := storage.read_json_object(storage.join(self._plan.url, name)):
                reasons[f"{word['message']} ({word['error']})"] += 1
        if not reasons:
            reasons[self._why_no_word()] += 1
        said = "; ".join(reason for reason, _ in reasons.most_common(3))
        return (f"{len(pending)} of {self._plan.num_shards} shards could not be made, the first "
                f"being {pending[0]}: {said}. The finished ones are kept; the same command goes on")

    def _why_no_word(self) -> str:
        """Why shards failed without leaving word: nothing can be written, or workers were lost."""
        probe = storage.join(self._plan.url, FAILED, "probe")
        try:
            storage.write_bytes(probe, bytes(1 << 16))
        except OSError as error:
            return f"{self._plan.url} takes no data: {error.strerror or error}"
        storage.remove(probe)
        return self._lost or f"no worker left word of them; do all of them reach {self._plan.url}?"

    def _remove_unfinished(self) -> None:
        for folder in (tokens.PLAN, tokens.RECEIPTS, tokens.DEAD, FAILED, ""):
            storage.remove_unfinished(storage.join(self._plan.url, folder))
        storage.remove_unfinished(storage.join(self._plan.corpus_url, tokens.DATA))


def _failure_name(shard: int) -> str:
    return f"{FAILED}/{shard:05d}.json"
