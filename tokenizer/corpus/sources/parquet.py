"""Parquet files with images in a column: as bytes, or as Hugging Face structs of bytes and path.

Files are listed by their footers and by their columns of keys, labels and captions. To read a row,
its row group is gone through up to that row, and what it holds is laid down in a temporary file, so
that memory holds one page of rows whatever the size of a row group. Groups share few such files,
however many there are of them; what was laid down long ago is given up.
"""
import hashlib
import os
import posixpath
import tempfile
import threading
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer import storage
from tokenizer.corpus.sources import columns
from tokenizer.corpus.sources.base import Entry, InputError, NullImage, SourceChanged
from tokenizer.corpus.sources.listed import Record
from tokenizer.corpus.sources.tables import TableSource
from tokenizer.corpus.sources.urls import (
    expand,
    identity,
    names_files,
    require_files,
    split_options,
    stems,
)
from tokenizer.stores import StoredFile

ROWS_AT_ONCE = 16
"""Rows with images that memory holds."""

TEXT_ROWS_AT_ONCE = 4096
"""Rows without images that memory holds while files are listed."""

MAX_SPOOLED_BYTES = 16 << 30
"""Bytes of row groups in temporary files, above which the oldest file is removed."""

NUM_SPOOLS = 16
"""Temporary files that these bytes are divided among."""

MAX_OPEN = 4
"""Row groups that are open at once to be read further; each takes the memory of one page."""

MAGIC = b"PAR1"

NULL, ELSEWHERE = -1, -2
"""In the place of a size: there is no file; or it was only named, and could not be read."""

OF_ONE_FILE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of a file that a row only names."""


class DamagedRowGroup(InputError):
    """The row group of an input cannot be decoded up to its row."""


class ParquetSource(TableSource):
    """Parquet files with a column of image files, and columns of maps, by name.

    Args:
        url: one file or, with braces and stars, several.
        options: ``column``, ``key`` and ``caption`` name columns.
    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there is no such column.
    """
    name: ClassVar[str] = "parquet"
    form: ClassVar[str] = "data/*.parquet"

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        super().__init__(url, maps, labels, modality, options)
        self.urls = expand(url)
        require_files(self.urls)
        self._stems = dict(zip(self.urls, stems(self.urls), strict=True))
        self._identities: dict[str, str] = {}
        self._groups = _Groups()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_groups": _Groups()}

    @classmethod
    def accepts(cls, url: str) -> bool:
        return names_files(url, (".parquet",)) and not holds_places(url)

    def identities(self) -> dict[str, str]:
        return self._identities

    def records(self, notes: Counter[str]) -> Iterator[Record]:
        chosen = False
        for url in self.urls:
            try:
                with opened(url) as (file, parquet):
                    self._identities[url] = _identity(url, file)
                    if not chosen:
                        self.choose_columns(parquet.schema_arrow)
                        chosen = True
                    yield from self._records_of(url, file, parquet)
            except _Unreadable as error:
                self._identities[url] = f"{identity(url)}, unreadable"
                message = f"{url} is no readable Parquet file: {error}; all its rows are lost"
                yield self._lost(url, ("DamagedFile", message))

    def read(self, entry: Entry) -> dict[str, bytes]:
        url, place = split_options(entry.source)
        group, row = int(place["rowgroup"]), int(place["row"])
        values = self._groups.group(url, group, self._identities[url],
                                    list(self.file_columns.values())).row(row)
        found = {}
        for modality, value in zip(self.file_columns, values, strict=True):
            if value is None:
                raise NullImage(f"row {row} of row group {group} has no {modality} in column "
                                f"{self.file_columns[modality]}")
            found[modality] = value
        return found

    def _records_of(self, url: str, file: StoredFile,
                    parquet: pq.ParquetFile) -> Iterator[Record]:
        """The records of one file, row group by row group."""
        wanted = {*self.file_columns.values(), *filter(None, self.text_columns.values())}
        names = parquet.schema_arrow.names
        if missing := sorted(name for name in wanted
                             if name not in names and name.partition(".")[0] not in names):
            yield self._lost(url, ("MissingColumn", f"{url} has no column {missing[0]}; it has "
                                   f"{', '.join(names)}"))
            return
        first_row = 0
        for group in range(parquet.num_row_groups):
            num_rows = parquet.metadata.row_group(group).num_rows
            row, why = 0, "it has fewer rows than its file's footer states"
            try:
                for values in islice(self._text_rows(parquet, group, num_rows), num_rows):
                    yield self.record(f"{url}#rowgroup={group}&row={row}",
                                      f"{self._stems[url]}-{first_row + row:08d}", values)
                    row += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                if file.error is not None:
                    raise
                why = str(error)
            for lost in range(row, num_rows):
                yield self.record(
                    f"{url}#rowgroup={group}&row={lost}",
                    f"{self._stems[url]}-{first_row + lost:08d}", {},
                    ("DamagedRowGroup", f"row group {group} of {url} is damaged: {why}"))
            first_row += num_rows

    def _text_rows(self, parquet: pq.ParquetFile, group: int,
                   num_rows: int) -> Iterator[dict[str, Any]]:
        """Key, label and caption of each row of a group, as far as there are such columns."""
        names = [name for name in self.text_columns.values() if name is not None]
        if not names:
            yield from ({} for _ in range(num_rows))
            return
        for batch in parquet.iter_batches(TEXT_ROWS_AT_ONCE, [group], names, use_threads=False):
            for row in batch.to_pylist():
                yield {use: columns.value_at(row, name) for use, name in self.text_columns.items()}

    def _lost(self, url: str, problem: tuple[str, str]) -> Record:
        """The record of a whole file that cannot be read."""
        return Record(key=self._stems[url], sources={self.modalities[0]: url}, problem=problem)


class _Spool:
    """A temporary file in which files lie one after another."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._lock = threading.Lock()

    def append(self, content: bytes) -> int:
        """Lay down a file; returns where it begins."""
        with self._lock:
            offset = self.num_bytes
            os.pwrite(self._file.fileno(), content, offset)
            self.num_bytes += len(content)
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """The file of ``size`` bytes that begins at ``offset``."""
        return os.pread(self._file.fileno(), size, offset)


class _Groups:
    """The row groups that were read last, in temporary files; safe to use from several threads."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], _Group] = {}
        self._spools: deque[_Spool] = deque()
        self._open: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["_Groups"], tuple[()]]:
        return _Groups, ()

    def group(self, url: str, number: int, expected: str, names: list[str]) -> "_Group":
        """One row group of a file whose `_identity` is ``expected``."""
        with self._lock:
            if (url, number) not in self._groups:
                self._groups[url, number] = _Group(url, number, expected, names, self._spool())
            self._close_others((url, number))
            return self._groups[url, number]

    def _spool(self) -> _Spool:
        """The file for a new group; older ones than fit give way with their groups."""
        if not self._spools or self._spools[-1].num_bytes > MAX_SPOOLED_BYTES // NUM_SPOOLS:
            self._spools.append(_Spool())
        while len(self._spools) > 2 and sum(
                spool.num_bytes for spool in self._spools) > MAX_SPOOLED_BYTES:
            oldest = self._spools.popleft()
            self._groups = {place: group for place, group in self._groups.items()
                            if group.spool is not oldest}
        return self._spools[-1]

    def _close_others(self, asked: tuple[str, int]) -> None:
        """Of the groups that may be open, close those that were asked for longest ago."""
        self._open[asked] = None
        self._open.move_to_end(asked)
        for place in list(self._open)[:-MAX_OPEN]:
            if place not in self._groups or self._groups[place].close():
                del self._open[place]


class _Group:
    """The files in one row group, laid down in a spool as far as they were asked for."""

    def __init__(self, url: str, number: int, expected: str, names: list[str],
                 spool: _Spool) -> None:
        self.spool = spool
        self._url, self._names, self._number, self._expected = url, names, number, expected
        self._lock = threading.Lock()
        self._stretches = array("q")
        self._rows: Iterator[list[bytes | OSError | None]] | None = None
        self._num_rows: int | None = None
        self._error: InputError | None = None
        self._elsewhere: dict[int, OSError] = {}

    def row(self, number: int) -> list[bytes | None]:
        """The files of one row, by column.

        Raises:
            DamagedRowGroup: the group cannot be read so far.
            SourceChanged: the file is no longer the one that was listed.
            FileNotFoundError, PermissionError: a file that the row names cannot be read.
        """
        width = 2 * len(self._names)
        with self._lock:
            try:
                while len(self._stretches) <= number * width:
                    self._advance(len(self._stretches) // width)
            except DamagedRowGroup as error:
                self._error = error
                raise
            except BaseException:
                self._rows = None  # begin anew when asked again
                raise
            stretches = self._stretches[number * width:(number + 1) * width]
        pairs = list(zip(stretches[::2], stretches[1::2], strict=True))
        for column, (_, size) in enumerate(pairs):
            if size == ELSEWHERE:
                raise self._elsewhere[number * len(self._names) + column].with_traceback(None)
        return [None if size == NULL else self.spool.read(offset, size) for offset, size in pairs]

    def close(self) -> bool:
        """Close the file, where no thread reads from it; it is opened again where it has to be."""
        if not self._lock.acquire(blocking=False):
            return False
        self._rows = None
        self._lock.release()
        return True

    def _advance(self, number: int) -> None:
        """Lay down row ``number``, the next one."""
        if self._error is not None:
            raise DamagedRowGroup(str(self._error))
        if self._rows is None:
            self._rows = islice(self._read(), number, None)
        stretches: list[int] = []
        for column, value in enumerate(next(self._rows)):
            if isinstance(value, OSError):
                self._elsewhere[number * len(self._names) + column] = value
                stretches += (0, ELSEWHERE)
            else:
                stretches += (0, NULL) if value is None else (self.spool.append(value), len(value))
        self._stretches.extend(stretches)
        if number + 1 == self._num_rows:
            self._rows = None

    def _read(self) -> Iterator[list[bytes | OSError | None]]:
        """The files of each row; after the last row an error, as no more is ever asked for."""
        what = f"row group {self._number} of {self._url}"
        try:
            with opened(self._url) as (file, parquet):
                if (found := _identity(self._url, file)) != self._expected:
                    raise SourceChanged(f"{self._url} has changed since it was listed: it was "
                                        f"{self._expected}, now {found}; bring the old file back, "
                                        "or start over with --overwrite")
                self._num_rows = parquet.metadata.row_group(self._number).num_rows
                for batch in parquet.iter_batches(ROWS_AT_ONCE, [self._number], self._names,
                                                  use_threads=False):
                    values = [_files_of(batch.column(name), self._url) for name in self._names]
                    yield from (list(row) for row in zip(*values, strict=True))
        except FileNotFoundError as error:
            raise SourceChanged(f"{self._url} is not there any more: bring it back") from error
        except _Unreadable as error:
            raise DamagedRowGroup(f"{what} is damaged: {error}") from error
        raise DamagedRowGroup(f"{what} has fewer rows than its file's footer states")


class _Unreadable(ValueError):
    """A file that can be reached is no sound Parquet file."""


@contextmanager
def opened(url: str) -> Iterator[tuple[StoredFile, pq.ParquetFile]]:
    """A Parquet file to read in small pieces; in the block, damage is `_Unreadable`.

    Raises:
        OSError: its store cannot be reached.
    """
    with StoredFile(url) as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20,
                                     page_checksum_verification=True)
            yield file, parquet
        except (SourceChanged, InputError, _Unreadable):
            raise
        except (pa.ArrowException, OSError) as error:
            if file.error is not None:
                raise file.error from error
            raise _Unreadable(" ".join(str(error).split())) from error


def holds_places(url: str) -> bool:
    """Whether Parquet files hold no images, only the paths or URLs of some."""
    for name in expand(url)[:1]:
        if not storage.exists(name):
            return False
        try:
            with opened(name) as (_, parquet):
                schema = parquet.schema_arrow
        except _Unreadable:
            return False
        return not columns.file_columns(schema) and any(
            field.name in columns.PLACES and columns.is_text(field.type) for field in schema)
    return False


def _identity(url: str, file: StoredFile) -> str:
    """What changes with a file's content: its size, its tag, and the hash of its footer."""
    size = int(file.seek(0, os.SEEK_END))
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length + 12 > size:
        raise _Unreadable("it does not end as a Parquet file does; it is cut off")
    file.seek(size - 8 - length)
    return f"{identity(url)}, footer sha256:{hashlib.sha256(file.read(length)).hexdigest()}"


def _files_of(column: pa.Array, url: str) -> Iterator[bytes | OSError | None]:
    """The files of a column's rows; those that are only named are read from beside the table, or
    are the error that this raises."""
    if not pa.types.is_struct(column.type):
        yield from (value.as_py() for value in column)
        return
    for value in column.to_pylist():
        content = None if value is None else value["bytes"]
        if content is None and value is not None and value.get("path"):
            place = value["path"]
            try:
                content = storage.read_bytes(place if "://" in place else
                                             storage.join(posixpath.dirname(url), place))
            except OF_ONE_FILE as error:
                content = error
        yield content
