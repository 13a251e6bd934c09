"""Hugging Face `datasets`: saved on disk, ``imagefolder``, or by id from the Hub.

    saved/                            a folder that `save_to_disk` has written
    datasets:imagefolder:photos@train
    datasets:USER/NAME@train[:1000]   downloaded once, to the library's own cache

Rows are read in any order from Arrow files on this machine. To read from the Hub without a download
give its Parquet files to `ParquetSource` instead: ``hf://datasets/USER/NAME/data/train-*.parquet``.
"""
import os
import posixpath
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from tokenizer import storage
from tokenizer.corpus.sources.base import Entry, NullImage, SourceChanged
from tokenizer.corpus.sources.listed import Record
from tokenizer.corpus.sources.tables import TableSource
from tokenizer.corpus.sources.urls import split_options

PREFIX, FOLDERS = "datasets:", "imagefolder:"
ROWS_AT_ONCE = 1024
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""Files of folders that `save_to_disk` has written: of one split, and of several."""

_SPLIT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>\d*):(?P<last>\d*)\])?")


class DatasetSource(TableSource):
    """A data set of the library `datasets`.

    Args:
        url: ``datasets:NAME``, or a folder of `save_to_disk`; behind it ``@SPLIT`` or
            ``@SPLIT[FIRST:LAST]``, which may be left out where there is one split.
        options: ``column``, ``key``, ``caption`` name columns; ``config`` and ``revision`` are
            those of the Hub.
    Raises:
        FileNotFoundError: it cannot be found.
        ValueError: there is no such split or column.
    """
    name: ClassVar[str] = "datasets"
    form: ClassVar[str] = "datasets:USER/NAME@SPLIT or a folder of save_to_disk"
    rank: ClassVar[int] = 1
    known_options = ("caption", "column", "config", "key", "revision")

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        super().__init__(url, maps, labels, modality, options)
        self._place, self._split, self._slice = _parse(url)
        if not self._place:
            raise ValueError(f"{url} names no data set; write for example {PREFIX}USER/NAME@train")
        self._identity = ""
        self._rows: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_rows": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @classmethod
    def accepts(cls, url: str) -> bool:
        place = _parse(url)[0]
        return url.startswith(PREFIX) or bool(_saved(place))

    def identities(self) -> dict[str, str]:
        return {self.url: self._identity}

    def records(self, notes: Counter[str]) -> Iterator[Record]:
        rows, split = self._open()
        self._identity = _identity(rows)
        self.choose_columns(rows.features.arrow_schema)
        first, last = (value if value is None else int(value) for value in self._slice)
        start, stop, _ = slice(first, last).indices(len(rows))
        for begin in range(start, stop, ROWS_AT_ONCE):
            table = rows.with_format("arrow")[begin:min(stop, begin + ROWS_AT_ONCE)]
            texts = {use: _column(table, name).to_pylist()
                     for use, name in self.text_columns.items() if name is not None}
            paths = self._paths(table)
            for offset in range(table.num_rows):
                values = {use: found[offset] for use, found in texts.items()}
                row = begin + offset
                yield self.record(f"{self._named(split)}#row={row}",
                                  paths[offset] or f"{split}-{row:08d}", values)

    def read(self, entry: Entry) -> dict[str, bytes]:
        row = int(split_options(entry.source)[1]["row"])
        values = self._opened()[row]
        found = {}
        for modality, column in self.file_columns.items():
            value = values[column]
            content = value["bytes"] if isinstance(value, dict) else value
            if content is None and isinstance(value, dict) and value.get("path"):
                content = storage.read_bytes(value["path"])
            if content is None:
                raise NullImage(f"row {row} has no {modality} in column {column}")
            found[modality] = content
        return found

    def _named(self, split: str) -> str:
        """The data set with its split, as rows are told to come from it."""
        head = self.url if self._split is None else self.url[:self.url.rindex("@")]
        return f"{head}@{split}"

    def _paths(self, table: pa.Table) -> list[str | None]:
        """Of each row, the path of its image below the data set's folder, without suffix."""
        column = self.file_columns[self.modalities[0]]
        kind = table.schema.field(column).type
        if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
            return [None] * table.num_rows
        root = os.path.join(os.path.abspath(self._place.removeprefix(FOLDERS)), "")
        return [posixpath.splitext(path[len(root):].replace(os.sep, "/"))[0]
                if path and path.startswith(root) else None
                for path in _column(table, f"{column}.path").to_pylist()]

    def _opened(self) -> Any:
        """The rows, undecoded, with the columns that are read.

        Raises:
            SourceChanged: they are not those that were listed.
        """
        with self._lock:
            if self._rows is None:
                rows = self._open()[0]
                if (found := _identity(rows)) != self._identity:
                    raise SourceChanged(f"{self.url} has changed since it was listed: it was "
                                        f"{self._identity}, now {found}; bring the old one back, "
                                        "or start over with --overwrite")
                self._rows = rows.select_columns(sorted(set(self.file_columns.values())))
            return self._rows

    def _open(self) -> tuple[Any, str]:
        """The rows with undecoded images, and the name of their split."""
        import datasets
        datasets.disable_progress_bars()
        found = self._load(datasets)
        if isinstance(found, Mapping):
            splits = list(found)
            if self._split is None and len(splits) != 1:
                raise ValueError(f"{self.url} has the splits {', '.join(splits)}: choose one, as in"
                                 f" {self.url}@{splits[0]}")
            if self._split is not None and self._split not in found:
                raise ValueError(f"{self.url} has no split {self._split!r}; it has "
                                 f"{', '.join(splits)}")
            split = self._split or splits[0]
            found = found[split]
        else:
            split = self._split or str(found.split or "all")
        for column, feature in found.features.items():
            if isinstance(feature, datasets.Image):
                found = found.cast_column(column, datasets.Image(decode=False))
        return found, split

    def _load(self, datasets: Any) -> Any:
        if _saved(self._place):
            return datasets.load_from_disk(self._place)
        place, more = self._place, {}
        if place.startswith(FOLDERS):
            place, more = "imagefolder", {"data_dir": place.removeprefix(FOLDERS)}
            if not storage.is_folder(more["data_dir"]):
                raise FileNotFoundError(f"{more['data_dir']} is no folder")
        try:
            return datasets.load_dataset(place, self.options.get("config"), **more,
                                         revision=self.options.get("revision"))
        except (OSError, ValueError):
            raise
        # The library and its HTTP client have errors of their own, without a common base.
        except Exception as error:
            raise OSError(f"{self.url} cannot be loaded ({type(error).__name__}): {error}"
                          ) from error


def _parse(url: str) -> tuple[str, str | None, tuple[str | None, str | None]]:
    """Place, split, and first and last row of a data set's URL."""
    place, mark, split = url.removeprefix(PREFIX).rpartition("@")
    match = _SPLIT.fullmatch(split) if mark else None
    if match is None:
        if mark and url.startswith(PREFIX):
            raise ValueError(f"the split {split!r} of {url} is not of the form NAME or "
                             "NAME[FIRST:LAST]")
        return url.removeprefix(PREFIX), None, (None, None)
    return place, match["name"], (match["first"] or None, match["last"] or None)


def _saved(place: str) -> str | None:
    """Which file tells that a folder was written by `save_to_disk`, if any does."""
    return next((name for name in (SAVED, SAVED_SPLITS)
                 if storage.exists(storage.join(place, name))), None)


def _identity(rows: Any) -> str:
    """What changes with a data set's content."""
    size = sum(os.path.getsize(file["filename"]) for file in rows.cache_files)
    return f"{len(rows)} rows in {size} bytes, fingerprint {rows._fingerprint}"


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column by a name that may lead into structs."""
    head, _, rest = name.partition(".")
    if name in table.column_names or not rest:
        return table.column(name)
    return pc.struct_field(table.column(head), rest.split("."))
