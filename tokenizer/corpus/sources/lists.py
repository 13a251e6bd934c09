"""Lists of files: a table in CSV, TSV, JSON lines or Parquet with a column of paths or URLs.

    path,label,caption
    cats/tom.jpg,cat,a cat on a mat
    https://example.org/rex.jpg,dog,

Paths are relative to the list's folder, absolute, or URLs of any fsspec file system; web addresses
are fetched with the limits of `web.FetchConfig`.
"""
import contextlib
import csv
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urljoin, urlsplit

import pyarrow as pa

from tokenizer import configs, storage
from tokenizer.corpus.labels import OwnLabels
from tokenizer.corpus.sources import columns
from tokenizer.corpus.sources.base import Entry
from tokenizer.corpus.sources.listed import ListedSource, Record
from tokenizer.corpus.sources.parquet import holds_places, opened
from tokenizer.corpus.sources.urls import (
    expand,
    identity,
    is_web,
    names_files,
    printable,
    require_files,
    stems,
    suffix_of,
)
from tokenizer.corpus.sources.web import FetchConfig, fetch

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
ROWS_AT_ONCE = 4096
LIMITS = ("backoff", "deadline", "max_bytes", "max_redirects", "retries", "timeout")


class Row(NamedTuple):
    """One row of a list: its number from 1, its values by column, and what is wrong with it."""
    number: int
    values: Mapping[str, Any]
    problem: str | None = None


class ListSource(ListedSource):
    """Tables that name files.

    Args:
        url: one list or, with braces and stars, several.
        options: ``column``, ``key`` and ``caption`` name columns; the rest are those of
            `web.FetchConfig`.
    Raises:
        FileNotFoundError: a list does not exist.
        ValueError: an option is wrong.
    """
    name: ClassVar[str] = "list"
    form: ClassVar[str] = "list.csv, .tsv or .jsonl of paths or URLs"
    known_options = ("caption", "column", "key", *LIMITS)

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        super().__init__(url, maps, labels, modality, options)
        self.urls = expand(url)
        require_files(self.urls)
        self._stems = dict(zip(self.urls, stems(self.urls), strict=True))
        self._limits = configs.from_dict(FetchConfig, {
            name: configs.parse_value(self.options[name]) for name in LIMITS
            if name in self.options})

    @classmethod
    def accepts(cls, url: str) -> bool:
        return names_files(url, TEXT_SUFFIXES) or (names_files(url, (".parquet",))
                                                   and holds_places(url))

    def identities(self) -> dict[str, str]:
        return {url: f"{identity(url)}, sha256:{storage.sha256_of_file(url)}" for url in self.urls}

    def records(self, notes: Counter[str]) -> Iterator[Record]:
        for url in self.urls:
            names = self._columns_of(found) if (found := columns_in(url)) else {}
            for row in rows_of(url):
                if row.problem is not None:
                    yield self._damaged(url, row.number, "DamagedLine", row.problem)
                else:
                    yield self._record(url, row, names)

    def read(self, entry: Entry) -> dict[str, bytes]:
        return {modality: fetch(url, self._limits) if is_web(url) else storage.read_bytes(url)
                for modality, url in entry.sources.items()}

    def _columns_of(self, names: list[str]) -> dict[str, str | None]:
        """The column of each modality, and those of key, label and caption.

        Raises:
            ValueError: there is no such column.
        """
        first, *maps = self.modalities
        found = {first: columns.choose(names, self.columns[first], (first, *columns.PLACES),
                                       f"paths or URLs of {first}s (#column=NAME)", required=True)}
        for name in maps:
            found[name] = columns.choose(names, self.columns[name], (), f"paths or URLs of {name}")
        wanted = {**self.options,
                  "label": self.labels.column if isinstance(self.labels, OwnLabels) else None}
        usual = {"key": columns.KEYS, "label": columns.LABELS, "caption": columns.CAPTIONS}
        return {**found, **{f"#{use}": columns.choose(names, wanted.get(use), some, f"the {use}")
                            for use, some in usual.items()}}

    def _record(self, url: str, row: Row, names: Mapping[str, str | None]) -> Record:
        first = self.modalities[0]
        places = {name: row.values.get(names[name] or "") for name in self.modalities}
        place = places[first]
        if not isinstance(place, str) or not place.strip():
            return self._damaged(url, row.number, "NoPlace", f"row {row.number} of {url} has no "
                                 f"path or URL in its column {names[first]}: {place!r:.200}")
        key = columns.value_at(row.values, names["#key"])
        if names["#key"] is not None and key in (None, ""):
            return self._damaged(url, row.number, "NoKey", f"row {row.number} of {url} has nothing "
                                 f"in its column {names['#key']} of keys")
        problem = None
        for name in self.modalities:
            if not isinstance(places[name], str) or not str(places[name]).strip():
                problem = ("MissingMap", f"row {row.number} of {url} names no {name} in its column "
                           f"{names[name]}")
        texts = [str(row.values.get(name)) for name in names.values() if name is not None]
        if any(printable(text) != text or "\0" in text for text in texts):
            problem = ("NotUTF8", f"row {row.number} of {url} holds bytes that are no UTF-8 text; "
                       "save the list as UTF-8")
        where = f"row {row.number} of {url}"
        return Record(
            key=_key_of(place.strip(), url) if key in (None, "") else str(key),
            sources={name: resolve(place.strip(), url) for name, place in places.items()
                     if isinstance(place, str) and place.strip()},
            label=columns.label_text(columns.value_at(row.values, names["#label"]), where),
            caption=columns.caption_text(columns.value_at(row.values, names["#caption"])),
            problem=problem)

    def _damaged(self, url: str, number: int, error: str, message: str) -> Record:
        """The record of a row that names no file."""
        return Record(key=f"{self._stems[url]}-{number:08d}", problem=(error, message),
                      sources={self.modalities[0]: f"{url}#row={number}"})


def resolve(place: str, base: str) -> str:
    """A path or URL of a list as the file that it means.

    Args:
        base: the list's own path or URL; a list of the web names no files of this machine.
    """
    if "://" in place or (place.startswith("/") and not is_web(base)):
        return place
    if is_web(base):
        try:
            return urljoin(base, place)
        except ValueError:  # its host is none, which fetching it tells
            return f"{urlsplit(base).scheme}:{place}"
    return storage.join(posixpath.dirname(base), posixpath.normpath(place))


def columns_in(url: str) -> list[str]:
    """The columns of a list; of JSON lines those of any row."""
    if suffix_of(url) == ".parquet":
        with opened(url) as (_, parquet):
            return list(parquet.schema_arrow.names)
    if suffix_of(url) in (".jsonl", ".ndjson"):
        return list(dict.fromkeys(name for row in rows_of(url) for name in row.values))
    first = next((row for row in rows_of(url) if row.values), None)
    return [] if first is None else [name for name in first.values if name is not None]


def rows_of(url: str) -> Iterator[Row]:
    """The rows of one list, in order; those that cannot be read have a problem.

    Raises:
        OSError: it cannot be reached.
        ValueError: a Parquet file is damaged.
    """
    suffix = suffix_of(url)
    if suffix == ".parquet":
        yield from _parquet_rows(url)
        return
    fs, path = storage.locate(url)
    with storage.remote_errors(url), fs.open(path, "rt", encoding="utf-8-sig",
                                             errors="surrogateescape", newline="") as file:
        if suffix in (".jsonl", ".ndjson"):
            yield from _json_rows(file)
        else:
            yield from _csv_rows(file, "\t" if suffix == ".tsv" else ",")


def _csv_rows(file: Any, delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        first = reader.reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield Row(number, {}, f"lines {first} to {reader.reader.line_num} are no CSV: {error}")
            continue
        if values is None:
            return
        problem = None
        if None in values:
            problem = f"line {reader.line_num} holds more values than there are columns"
        yield Row(number, values, problem)


def _json_rows(file: Any) -> Iterator[Row]:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Row(number, {}, f"line {number} is not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield Row(number, values)
        else:
            yield Row(number, {}, f"line {number} is no JSON object")


def _parquet_rows(url: str) -> Iterator[Row]:
    number = 0
    with opened(url) as (_, parquet):
        names = [field.name for field in parquet.schema_arrow if not pa.types.is_list(field.type)]
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(ROWS_AT_ONCE, [group], names, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)


def _key_of(place: str, base: str) -> str:
    """The key of a file without one: its path without suffix, of web addresses with their host."""
    if is_web(place):
        with contextlib.suppress(ValueError):  # it is no address, which fetching it tells
            parts = urlsplit(place)
            stem = posixpath.splitext(f"{parts.netloc}{parts.path}")[0]
            return f"{stem}?{parts.query}" if parts.query else stem
    folder = posixpath.dirname(base).rstrip("/") + "/"
    if place.startswith(folder) and len(folder) > 1:
        place = place[len(folder):]
    elif "://" in place:
        place = place.partition("://")[2]
    return posixpath.splitext(posixpath.normpath(place).lstrip("/"))[0]
