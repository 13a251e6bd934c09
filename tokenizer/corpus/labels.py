"""Labels: which class and caption an image has, found by its key.

    auto              what the source itself says (``.cls`` members, a column ``label``), else:
    folder            the first folder of the key; images beside the folders have no class
    column:NAME       a column, or of tar files a suffix, of the source itself
    none              no classes
    regex:PATTERN     group ``class`` of the pattern, else its first group, searched in the key
    path of a table   CSV, TSV or JSON lines with columns ``key``, ``label`` and ``caption``

To add a way, subclass `Labels` here and let `labels_from` recognise it. A label is the index of a
class in the sorted list of class names; whole numbers in a table are indices already.
"""
import csv
import json
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from tokenizer import storage, stores

MAX_LABEL = 1_000_000
"""Largest number that a table may give as a label; every smaller one is a class."""

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


class Keys(Protocol):
    """What labels ask of a source."""

    def keys(self) -> Iterator[str]:
        """All keys, one at a time."""

    def folders(self) -> list[str]:
        """First parts of keys that have several, sorted."""


class Label(NamedTuple):
    """Class and caption of one image; either may be missing.

    Attributes:
        found: whether the labels know the image at all.
    """
    class_name: str | None = None
    caption: str | None = None
    found: bool = False


class Labels(ABC):
    """A way to find labels; picklable."""

    @abstractmethod
    def classes(self, source: Keys) -> list[str]:
        """Every class of a source by name, in the order of their labels."""

    @abstractmethod
    def of(self, key: str, name: str) -> Label:
        """The label of one image.

        Args:
            key: its key.
            name: its path below the corpus, with suffix.
        """

    def notes(self, num_found: int, num_images: int) -> dict[str, int]:
        """What is worth telling, with counts, when ``num_found`` of the images had a label."""
        return {}


class NoLabels(Labels):
    """No image has a class."""

    def classes(self, source: Keys) -> list[str]:
        return []

    def of(self, key: str, name: str) -> Label:
        return Label()


class FolderLabels(Labels):
    """The first folder of the key is the class; every folder is one, also without images."""

    def classes(self, source: Keys) -> list[str]:
        return source.folders()

    def of(self, key: str, name: str) -> Label:
        folder, separator, _ = key.partition("/")
        return Label(folder, None, True) if folder and separator else Label()


class OwnLabels(FolderLabels):
    """What a source says itself; of one that says nothing, the first folder of the key.

    Attributes:
        column: the column, or suffix, that says it; nothing for the source's usual one.
    """

    def __init__(self, column: str | None = None) -> None:
        self.column = column


class PatternLabels(Labels):
    """A regular expression finds the class in the key; where it does not match there is none.

    Raises:
        ValueError: the pattern is no regular expression or has no group, or matches no key.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} of labels is not a regular expression: "
                             f"{error}") from error
        if not self.pattern.groups:
            raise ValueError(f"the pattern {pattern!r} of labels has no group; put the part of the "
                             "key that is the class in parentheses, for example regex:^([^_]+)_")

    def classes(self, source: Keys) -> list[str]:
        keys = source.keys()
        found = {name for key in keys if (name := self._search(key)) is not None}
        if not found:
            raise ValueError(f"the pattern {self.pattern.pattern!r} of labels matches no key of "
                             f"{source}; the first key is {next(source.keys(), None)!r}")
        return sorted(found)

    def of(self, key: str, name: str) -> Label:
        class_name = self._search(key)
        return Label(class_name, None, class_name is not None)

    def notes(self, num_found: int, num_images: int) -> dict[str, int]:
        return {"keys that the pattern of labels does not match": num_images - num_found}

    def _search(self, key: str) -> str | None:
        match = self.pattern.search(key)
        group: str | int = "class" if "class" in self.pattern.groupindex else 1
        return match[group] if match else None


class TableLabels(Labels):
    """Labels from a CSV, TSV or JSON-lines file with columns ``key``, ``label`` and ``caption``.

    ``label`` is a class name or, in every row, a whole number; it and ``caption`` may be empty or
    left out. Keys may carry the file's suffix. Rows are kept in a temporary database on disk, so
    that memory does not grow with the table.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, url: str) -> None:
        if not storage.exists(url):
            raise FileNotFoundError(f"{url} does not exist; labels are auto, folder, none, "
                                    "column:NAME, regex:PATTERN, or the path of a CSV or "
                                    "JSON-lines table")
        self.url = url
        self._rows: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_rows": None}

    def classes(self, source: Keys) -> list[str]:
        """Names in order, or the numbers from 0 to the largest.

        Raises:
            ValueError: the table is damaged, or a number is out of range.
        """
        return names_of(_distinct_labels(self._open()), self.url)

    def of(self, key: str, name: str) -> Label:
        found = self._open().execute(
            "SELECT label, caption FROM labels WHERE key IN (?, ?) ORDER BY key = ? DESC",
            (key, name, key)).fetchone()
        return Label(found[0], found[1], True) if found else Label()

    def notes(self, num_found: int, num_images: int) -> dict[str, int]:
        num_rows, = self._open().execute("SELECT count(*) FROM labels").fetchone()
        if num_images and not num_found:
            first, = self._open().execute("SELECT min(key) FROM labels").fetchone()
            raise ValueError(f"no key of {self.url} is one of the corpus; its first key is "
                             f"{first!r}; keys are paths below the corpus folder, with or without "
                             "suffix")
        return {"images without a row in the table of labels": num_images - num_found,
                "rows of the table of labels without an image": num_rows - num_found}

    def _open(self) -> sqlite3.Connection:
        """The rows as a temporary database, filled when first needed."""
        if self._rows is not None:
            return self._rows
        rows = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file
        rows.execute("CREATE TABLE labels (key TEXT PRIMARY KEY, label TEXT, caption TEXT) "
                     "WITHOUT ROWID")
        try:
            for line, row in self._read():
                values = [_text(row.get(name), line) for name in ("key", "label", "caption")]
                if values[0] is None:
                    raise ValueError(f"line {line} has no key")
                insert = "INSERT OR IGNORE INTO labels VALUES (?, ?, ?)"
                if not rows.execute(insert, values).rowcount:
                    raise ValueError(f"line {line} repeats the key {values[0]!r}")
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{self.url}: {error}") from error
        if are_numbers(_distinct_labels(rows)):
            rows.execute("UPDATE labels SET label = CAST(CAST(label AS INTEGER) AS TEXT) "
                         "WHERE label IS NOT NULL")  # 007 and 7 are one class
        self._rows = rows
        return rows

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line number and values by column of each row."""
        lines = stores.read_lines(self.url)
        if self.url.lower().endswith(("jsonl", "ndjson")):
            yield from _json_rows(lines)
        else:
            yield from _csv_rows(lines, "\t" if self.url.lower().endswith("tsv") else ",")


def labels_from(text: str) -> Labels:
    """The labels that an option describes: see the head of this module.

    Raises:
        FileNotFoundError: a table does not exist.
        ValueError: the text is none of the ways, or its pattern is wrong.
    """
    if text == "auto":
        return OwnLabels()
    if text.startswith("column:"):
        return OwnLabels(text.removeprefix("column:"))
    if text == "folder":
        return FolderLabels()
    if text == "none":
        return NoLabels()
    if text.startswith("regex:"):
        return PatternLabels(text.removeprefix("regex:"))
    if text.lower().endswith(TABLE_SUFFIXES):
        return TableLabels(text)
    raise ValueError("labels are auto, folder, none, column:NAME, regex:PATTERN, or the path of a "
                     f"table ({', '.join(TABLE_SUFFIXES)}); got {text!r}")


def names_of(labels: list[str], where: str) -> list[str]:
    """Names of the classes that occur, in order; or, of numbers, all from 0 to the largest.

    Args:
        labels: the distinct labels, sorted.
        where: what holds them, for messages.
    Raises:
        ValueError: a number is out of range.
    """
    if not are_numbers(labels):
        return labels
    numbers = [int(label) for label in labels]
    if min(numbers) < 0 or max(numbers) > MAX_LABEL:
        wrong = min(numbers) if min(numbers) < 0 else max(numbers)
        raise ValueError(f"{where} holds the label {wrong}; labels are class names or whole "
                         f"numbers from 0 to {MAX_LABEL}; leave it empty where there is none")
    return [str(number) for number in range(max(numbers) + 1)]


def are_numbers(labels: list[str]) -> bool:
    """Whether there are labels, and all are whole numbers."""
    return bool(labels) and all(re.fullmatch(r"[+-]?[0-9]+", label) for label in labels)


def _distinct_labels(rows: sqlite3.Connection) -> list[str]:
    return [label for label, in rows.execute(
        "SELECT DISTINCT label FROM labels WHERE label IS NOT NULL ORDER BY label")]


def _csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    if "key" not in (reader.fieldnames or ()):
        raise ValueError("the first line names the columns key, label and caption; it holds "
                         f"{', '.join(reader.fieldnames or ()) or 'nothing'}")
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} holds more values than there are columns")
        yield reader.line_num, row


def _json_rows(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(lines, 1):
        if text.strip():
            try:
                row = json.loads(text)
            except ValueError as error:
                raise ValueError(f"line {line} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {line} is not an object with key, label and caption")
            yield line, row


def _text(value: Any, line: int) -> str | None:
    """A cell as text; nothing where it is empty."""
    if isinstance(value, bool | float | list | dict):
        raise ValueError(f"line {line} holds {value!r}; values are texts or whole numbers")
    return None if value is None or value == "" else str(value)
