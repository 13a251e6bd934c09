"""Sources whose inputs are records of larger files: what they share.

    records of the files -> index on disk -> entries, any number of times

The files are gone through once; their records, without any image, wait in a temporary database on
disk. To add such a source, subclass `ListedSource` and say how its records are found and read.
"""
import json
import posixpath
import sqlite3
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizer.corpus.labels import Label, Labels, OwnLabels, are_numbers, labels_from, names_of
from tokenizer.corpus.modalities import file_modality
from tokenizer.corpus.sources.base import Entry, Source
from tokenizer.corpus.sources.urls import printable, require_known

COLUMN = "column:"
"""What the maps and labels begin with that are a column of the corpus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One input as its source describes it.

    Attributes:
        label: class name or number as text; the rest as in `Entry`.
    """
    key: str
    sources: Mapping[str, str]
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    label: str | None = None
    caption: str | None = None
    problem: tuple[str, str] | None = None


class ListedSource(Source):
    """A source that finds its inputs as records.

    Args:
        options: settings of `known_options`, by name.
    Raises:
        ValueError: an option or a modality is unknown.

    Attributes:
        columns: the column, or suffix, that each modality lies in, where one was named.
        key_remedy: what to do about keys that occur twice.
        key_folders: whether the first folder of a key is a class where nothing else says one.
    """
    known_options: tuple[str, ...] = ("column",)
    key_remedy = "give the rows unique keys in a column key"
    key_folders = False

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        self.url, self.options, self.notes = url, dict(options or {}), Counter()
        require_known(self.options, self.known_options, str(self))
        maps = dict(maps or {})
        if modality in maps:
            raise ValueError(f"{modality} is the corpus itself; maps are of other modalities")
        self.columns: dict[str, str | None] = {
            modality: self.options.get("column"),
            **{name: self._column_of(name, value) for name, value in maps.items()}}
        self.modalities = tuple(self.columns)
        self.labels: Labels = labels_from(labels)
        self._index: _Index | None = None
        self._files: dict[str, str] | None = None

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_files": None}

    @abstractmethod
    def records(self, notes: Counter[str]) -> Iterator[Record]:
        """Every input in the order of the files, found anew.

        Args:
            notes: what is passed over is counted here.
        """

    @abstractmethod
    def identities(self) -> dict[str, str]:
        """See `Source.files`; asked for once, after `records` has been exhausted."""

    def class_names(self) -> list[str] | None:
        """Names of classes whose numbers are the labels, where the files hold them."""
        return None

    def files(self) -> dict[str, str]:
        self._listed()
        return dict(self._files or {})

    def classes(self) -> list[str]:
        if not self._labels_are_own():
            return self.labels.classes(self)
        return self.class_names() or names_of(self._listed().labels(), str(self))

    def folders(self) -> list[str]:
        return self._listed().folders()

    def keys(self) -> Iterator[str]:
        return self._listed().keys()

    def entries(self) -> Iterator[Entry]:
        index, own = self._listed(), self._labels_are_own()
        classes = self.classes()
        numbers = {name: number for number, name in enumerate(classes)}
        by_number = own and (self.class_names() is not None or are_numbers(classes))
        num_found = 0
        for record in index.records():
            label = (_own_label(record, classes if by_number else None) if own
                     else self.labels.of(record.key, record.key + _suffix_of(record)))
            num_found += label.found
            number = None if label.class_name is None else numbers.get(label.class_name)
            yield Entry(key=record.key, sources=record.sources, ranges=record.ranges,
                        problem=record.problem, class_name=label.class_name, label=number,
                        caption=label.caption or record.caption)
        more = {} if own else self.labels.notes(num_found, index.num_records)
        self.notes = +(index.notes + Counter(more))

    def _labels_are_own(self) -> bool:
        """Whether classes come from the records rather than from keys or a table."""
        if not isinstance(self.labels, OwnLabels):
            return False
        return (self.labels.column is not None or self.class_names() is not None
                or not self.key_folders or bool(self._listed().labels()))

    def _listed(self) -> "_Index":
        """The index, filled when first needed.

        Raises:
            ValueError: there is not one input.
        """
        if self._index is None:
            notes: Counter[str] = Counter()
            index = _Index(notes, self.key_remedy)
            for record in self.records(notes):
                index.add(record)
            index.find_repeats()
            if not index.num_records:
                found = ", ".join(f"{count} {what}" for what, count in sorted(notes.items()))
                raise ValueError(f"{self} holds no {self.modalities[0]} inputs; "
                                 f"{f'passed over: {found}' if found else 'it is empty'}")
            self._files = self.identities()
            self._index = index
        return self._index

    def _column_of(self, modality: str, value: str) -> str:
        """The column that holds a map."""
        if (held := file_modality(modality)) != modality:
            raise ValueError(f"{modality} are computed from {held} files and need no maps of their "
                             f"own; leave out {value}")
        if not value.startswith(COLUMN):
            raise ValueError(f"the {modality} maps of {self.url} lie in it, under a name: give "
                             f"{modality}={COLUMN}NAME, got {value!r}")
        return value.removeprefix(COLUMN)


def _own_label(record: Record, classes: list[str] | None) -> Label:
    """The label that a record states, by its number where there are ``classes``."""
    if record.label is None:
        return Label()
    if classes is None:
        return Label(record.label, None, True)
    number = int(record.label)
    return Label(classes[number] if 0 <= number < len(classes) else record.label, None, True)


def _suffix_of(record: Record) -> str:
    """The suffix of the file that an input lies in by itself, such as that of a member; of a row of
    a table nothing that a key could end in."""
    return posixpath.splitext(next(iter(record.sources.values()), ""))[1]


class _Index:
    """Records in a temporary database on disk, in order; a key's second record has a problem.

    Which keys are repeated is found by sorting all of them on disk once: an index that grew with
    each key would be read and written all over, again and again.

    Attributes:
        notes: as `ListedSource.records` counts them.
        num_records: how many there are.
    """

    def __init__(self, notes: Counter[str], remedy: str) -> None:
        self.notes, self._remedy = notes, remedy
        self.num_records = 0
        self._rows = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file
        self._rows.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, key TEXT, "
                           "sound INTEGER, label TEXT, body TEXT)")
        self._rows.execute("CREATE TABLE repeated (key TEXT PRIMARY KEY, first INTEGER) "
                           "WITHOUT ROWID")

    def add(self, record: Record) -> None:
        sources = {name: printable(url) for name, url in record.sources.items()}
        label, caption = (None if text is None else printable(text)
                          for text in (record.label, record.caption))
        problem = (None if record.problem is None
                   else (record.problem[0], printable(record.problem[1])))
        body = json.dumps([sources, dict(record.ranges), caption, problem])
        self._rows.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", (
            self.num_records, printable(record.key), problem is None, label, body))
        self.num_records += 1

    def find_repeats(self) -> None:
        """Note the keys that several records without a problem have, and the first of each."""
        self._rows.execute("INSERT INTO repeated SELECT key, min(number) FROM records WHERE sound "
                           "GROUP BY key HAVING count(*) > 1")

    def records(self) -> Iterator[Record]:
        for number, key, label, body, first in self._rows.execute(
                "SELECT number, key, label, body, first FROM records LEFT JOIN repeated "
                "USING (key) ORDER BY number"):
            sources, ranges, caption, problem = json.loads(body)
            if problem is None and first not in (None, number):
                problem = ("DuplicateKey", f"{self._source_of(first)} has the same key {key!r}: "
                           f"{self._remedy}")
            yield Record(key=key, sources=sources, label=label, caption=caption,
                         ranges={name: (first, count) for name, (first, count) in ranges.items()},
                         problem=None if problem is None else (problem[0], problem[1]))

    def keys(self) -> Iterator[str]:
        return (key for key, in self._rows.execute("SELECT key FROM records ORDER BY number"))

    def labels(self) -> list[str]:
        """The distinct labels, sorted."""
        return [label for label, in self._rows.execute(
            "SELECT DISTINCT label FROM records WHERE label IS NOT NULL ORDER BY label")]

    def folders(self) -> list[str]:
        return [folder for folder, in self._rows.execute(
            "SELECT DISTINCT substr(key, 1, instr(key, '/') - 1) AS folder FROM records "
            "WHERE sound AND instr(key, '/') > 1 ORDER BY folder")]

    def _source_of(self, number: int) -> str:
        """Where a record comes from."""
        body, = self._rows.execute("SELECT body FROM records WHERE number = ?",
                                   (number,)).fetchone()
        return next(iter(json.loads(body)[0].values()), "another input")
