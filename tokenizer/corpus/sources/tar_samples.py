"""Samples of WebDataset's tar files: members that share a name up to its first dot.

They need not lie side by side. What is known of an archive's members is held on a disk, not in
memory.
"""
import itertools
import posixpath
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from tokenizer.corpus.sources.tar_members import Member
from tokenizer.corpus.sources.urls import printable


class Part(NamedTuple):
    """One member of a sample: ``suffix`` is its name behind the first dot, in lower case."""
    suffix: str
    name: str
    offset: int
    size: int
    problem: str | None
    content: bytes | None


class Samples:
    """The members of one archive, grouped to samples in a temporary database on disk.

    To go through it gives keys in the order in which they first occur, each with its members in
    theirs.
    """

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")  # "" is a temporary file
        self._rows.execute("CREATE TABLE samples (number INTEGER PRIMARY KEY, key TEXT UNIQUE)")
        self._rows.execute("CREATE TABLE members (sample INTEGER, number INTEGER, suffix TEXT, "
                           "name TEXT, offset INTEGER, size INTEGER, problem TEXT, content BLOB)")
        self._num_members = 0
        self._last = ("", -1)

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def add(self, member: Member) -> None:
        """Put in the next member."""
        key, suffix = split(member.name)
        if self._last[0] != key or self._last[1] < 0:
            self._last = (key, self._number_of(printable(key)))
        self._rows.execute(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self._last[1], self._num_members, printable(suffix), printable(member.name),
             member.offset, member.size, member.problem, member.content))
        self._num_members += 1

    def __iter__(self) -> Iterator[tuple[str, list[Part]]]:
        self._rows.execute("CREATE INDEX order_of_members ON members (sample, number)")
        rows = self._rows.execute(
            "SELECT samples.key, suffix, name, offset, size, problem, content FROM members "
            "JOIN samples ON samples.number = sample ORDER BY sample, members.number")
        for key, members in itertools.groupby(rows, lambda row: row[0]):
            yield key, [Part(*row[1:]) for row in members]

    def _number_of(self, key: str) -> int:
        """The number of a sample, in the order in which they first occur."""
        self._rows.execute("INSERT OR IGNORE INTO samples (key) VALUES (?)", (key,))
        number: int = self._rows.execute("SELECT number FROM samples WHERE key = ?",
                                         (key,)).fetchone()[0]
        return number


def split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: its name divides at the first dot of its last component."""
    folder, base = posixpath.split(posixpath.normpath(name) if name.startswith("./") else name)
    stem, _, suffix = base.partition(".")
    return posixpath.join(folder, stem), suffix.lower()
