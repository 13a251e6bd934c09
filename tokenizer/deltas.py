"""Deltas: what was added to a token corpus after its job, each with a plan of its own.

    _deltas/001/_plan/, _receipts/, _dead/      the folder of the first delta's job
    data/part-d001-00000-of-00002.parquet       its shards, in one folder with all others

A corpus is a sequence of generations: number 0 is the job that made it, the others are its deltas.
An ``extend`` adds inputs. A ``retry`` has as inputs all dead letters there are when it is planned,
and takes their place: of these inputs only its own rows and dead letters count. No file of an
earlier generation changes.

Letters: n the number of a generation.
"""
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenizer import storage
from tokenizer.receipts import Receipt
from tokenizer.schema import DeltaEntry, ShardEntry

DELTAS = "_deltas"

EXTEND, RETRY = "extend", "retry"
KINDS = (EXTEND, RETRY)
"""Kinds of deltas: new inputs, and dead letters tried again."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One plan of a corpus, and what became of it.

    Attributes:
        number: 0 for the job that made the corpus, else that of a delta, from 1.
        kind: of a delta, one of `KINDS`; empty for number 0.
        fingerprint: of its plan.
        num_inputs: of its plan.
        receipts: one for each of its shards.
        planned: keys of a shard's inputs in order, where there is a plan.
    """
    fingerprint: str
    num_inputs: int
    receipts: Sequence[Receipt]
    planned: Callable[[int], Sequence[str]] | None = None
    number: int = 0
    kind: str = ""

    @property
    def num_rows(self) -> int:
        """Rows of its shards."""
        return sum(receipt.entry.rows for receipt in self.receipts)

    @property
    def dead_letters(self) -> Counter[str]:
        """How many of its inputs failed, by error class."""
        return sum((Counter(receipt.dead_letters) for receipt in self.receipts), Counter())

    @property
    def dead_files(self) -> tuple[ShardEntry, ...]:
        """Its files of dead letters, in order."""
        return tuple(receipt.dead_file for receipt in self.receipts if receipt.dead_file)

    def entry(self) -> DeltaEntry:
        """What the manifest says of a delta."""
        return DeltaEntry(kind=self.kind, fingerprint=self.fingerprint, num_inputs=self.num_inputs,
                          num_rows=self.num_rows, num_shards=len(self.receipts))


def delta_folder(number: int) -> str:
    """Path of a delta's job below its corpus; empty for number 0, the corpus itself."""
    return f"{DELTAS}/{number:03d}" if number else ""


def delta_mark(number: int) -> str:
    """What tells the shards of a delta from those of other generations by name."""
    return f"d{number:03d}-" if number else ""


def job_url(corpus: str, number: int) -> str:
    """Folder of a generation's job."""
    return storage.join(corpus, DELTAS, f"{number:03d}") if number else corpus


def corpus_url(job: str, number: int) -> str:
    """The corpus that a generation's job belongs to; undoes `job_url`."""
    return job.removesuffix(delta_folder(number)).rstrip("/") if number else job


def standing(generations: Sequence[Generation]) -> list[Generation]:
    """Those whose dead letters no later retry has taken the place of."""
    last = max((item.number for item in generations if item.kind == RETRY), default=0)
    return [item for item in generations if item.number >= last]


def retried(generations: Sequence[Generation]) -> Iterator[tuple[Generation, list[Generation]]]:
    """Each retry, and the generations whose dead letters are its inputs."""
    for position, generation in enumerate(generations):
        if generation.kind == RETRY:
            yield generation, standing(generations[:position])
