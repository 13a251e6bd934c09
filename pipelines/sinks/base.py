"""What every sink is: it takes the pictures of a shard in order, and knows what it has written.

A sink writes the same bytes for the same items, in whichever process and however often, and every
file whole or not at all. The job keeps an index table for each shard, with one row for each item;
where a shard is one file, its name, size and SHA-256 stand in the metadata of that table.
"""
import contextlib
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, ClassVar

import pyarrow as pa

from pipelines.job import OutputRefused
from tokenizer import configs, storage
from tokenizer.schema import GEOMETRY, ShardEntry

SHARD_FILE = b"img2tokens.file"
"""The name under which an index's metadata holds the `ShardEntry` of its shard's file as JSON."""

CARD = "README.md"

ABOUT = ("source", "label", "class_name", "caption", *(name for name in GEOMETRY
                                                       if name != "crop_index"), "flipped")
"""Columns of the corpus that sinks with one file a shard keep beside key and number of a crop."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One decoded crop.

    Attributes:
        name: path of its files without suffix, other than that of any other item, also on disks
            without letter case.
        columns: its row of the corpus: ``key``, ``crop_index`` and what `Sink.columns` names.
        files: content and suffix of its file by modality.
    """
    name: str
    columns: Mapping[str, Any]
    files: Mapping[str, tuple[bytes, str]]


class ShardWriter:
    """Takes the items of one shard in order; a context manager.

    Attributes:
        entry: the shard's file, known at the end of the context; nothing where it has none.
    """
    entry: ShardEntry | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        return None

    def add(self, item: Item) -> None:
        """Take the next item.

        Raises:
            OutputRefused: the store takes no more.
        """


@dataclass(frozen=True, kw_only=True)
class Sink(ABC):
    """Where the items of one job go; picklable.

    Attributes:
        name: its name in options and plans.
        columns: what it keeps of a row of the corpus beside ``key`` and ``crop_index``.
        output: folder of everything.
        modalities: of the files of each item.
        num_shards: of the job.
        classes: names of the classes by label.
        beside: what `complete` writes.
    """
    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[tuple[str, ...]] = ()
    output: str
    modalities: tuple[str, ...]
    num_shards: int
    classes: tuple[str, ...] = ()

    @abstractmethod
    def path(self, name: str, modality: str, suffix: str) -> str:
        """Path of one file of an item: below the output, or within the file of its shard."""

    def put(self, item: Item) -> None:  # noqa: B027  # nothing, for most
        """Write what needs no order; several threads call this at the same time.

        Raises:
            OSError: the store refuses.
        """

    @abstractmethod
    def writer(self, shard: int) -> ShardWriter:
        """Takes the items of one shard once they were `put`."""

    @abstractmethod
    def written(self, index: pa.Table) -> Iterator[tuple[str, int]]:
        """Path below the output, and size in bytes, of each file of a shard with this index."""

    @abstractmethod
    def left(self, shard: int, names: Iterable[str]) -> Iterator[str]:
        """Files that a stopped job may have left of a shard with items of these names."""

    @abstractmethod
    def folders(self, names: Iterable[str]) -> Iterator[str]:
        """Folders in which files of items of these names are begun."""

    def complete(self, num_items: int) -> None:  # noqa: B027  # nothing, for folders
        """Write what stands beside the files once all are there."""


@dataclass(frozen=True, kw_only=True)
class FileSink(Sink):
    """A sink that writes one file for each shard that has items.

    Attributes:
        pattern: of the files' paths below the output, with ``*`` for the part that varies.
        text: of the card, with the number of items and their modalities.
    """
    columns: ClassVar[tuple[str, ...]] = ABOUT
    beside: ClassVar[tuple[str, ...]] = (CARD,)
    pattern: ClassVar[str]
    text: ClassVar[str] = ("# Decoded pictures\n\n{num_items} pictures of {modalities}, decoded "
                           "from a token corpus.\n")

    def file(self, shard: int) -> str:
        """Path of a shard's file below the output."""
        return self.pattern.replace("*", f"part-{shard:05d}-of-{self.num_shards:05d}")

    def written(self, index: pa.Table) -> Iterator[tuple[str, int]]:
        if (found := (index.schema.metadata or {}).get(SHARD_FILE)) is not None:
            entry = configs.from_dict(ShardEntry, json.loads(found))
            yield entry.name, entry.bytes

    def left(self, shard: int, names: Iterable[str]) -> Iterator[str]:
        yield self.file(shard)

    def folders(self, names: Iterable[str]) -> Iterator[str]:
        yield self.pattern.rpartition("/")[0]

    def complete(self, num_items: int) -> None:
        """Write the card by which `datasets.load_dataset` finds the files."""
        header = (f"---\nconfigs:\n- config_name: default\n  data_files: '{self.pattern}'\n"
                  "tags:\n- img2tokens\n---\n\n")
        text = self.text.format(num_items=num_items, modalities=", ".join(self.modalities))
        storage.write_bytes(storage.join(self.output, CARD), f"{header}{text}".encode())


class FileWriter(ShardWriter, ABC):
    """Writes the file of one shard as items come; without any there is no file.

    Args:
        output: folder of the sink.
        name: path of the file below it.
    """

    def __init__(self, output: str, name: str) -> None:
        self._output, self._name = output, name
        self._stack = ExitStack()
        self._file: Measured | None = None
        self._num_items = 0

    @abstractmethod
    def begin(self, file: "Measured") -> None:
        """Write what comes before the first item."""

    @abstractmethod
    def append(self, item: Item) -> None:
        """Write one item."""

    @abstractmethod
    def end(self) -> None:
        """Write what comes after the last item."""

    def give_up(self) -> None:
        """Let go of a file that will not be finished."""

    def add(self, item: Item) -> None:
        with refusals(self._output):
            if self._file is None:
                url = storage.join(self._output, self._name)
                self._file = Measured(self._stack.enter_context(storage.writing(url)))
                self.begin(self._file)
            self.append(item)
        self._num_items += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is None:
            return
        if error is not None:
            self.give_up()
            self._stack.__exit__(kind, error, trace)
            return
        with refusals(self._output), self._stack:
            self.end()
        self.entry = ShardEntry(name=self._name, rows=self._num_items, bytes=self._file.num_bytes,
                                sha256=self._file.sha256)


class Measured(io.RawIOBase):
    """A file to write to in order, which counts and hashes what it is given.

    Attributes:
        num_bytes: written so far.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._target = file
        self._digest = hashlib.sha256()
        self.num_bytes = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of what was written."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.num_bytes

    def write(self, data: Any) -> int:
        content = memoryview(data)
        self._target.write(content)
        self._digest.update(content)
        self.num_bytes += content.nbytes
        return content.nbytes


@contextlib.contextmanager
def refusals(output: str, others: Container[int | None] = ()) -> Iterator[None]:
    """In the block, which writes to ``output`` and nothing else, system errors are refusals.

    Args:
        others: numbers of errors that are none.
    Raises:
        OutputRefused: the store takes no more.
    """
    try:
        yield
    except OutputRefused:
        raise
    except OSError as error:
        if error.errno in others:
            raise
        raise OutputRefused(f"{output} takes no data: {error.strerror or error}") from error
