"""Maps that lie in a source of their own, of whatever kind, joined to their images by key."""
import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizer.corpus.sources.base import Entry, Source


class JoinedSource(Source):
    """One source and, for further modalities, others whose keys are the same.

    Args:
        source: the corpus; keys, labels and order are its own.
        beside: the source of each further modality.
    """

    def __init__(self, source: Source, beside: Mapping[str, Source]) -> None:
        self.source, self.beside = source, dict(beside)
        self.modalities = (*source.modalities, *self.beside)
        self.notes = Counter()
        self._maps: sqlite3.Connection | None = None

    def __str__(self) -> str:
        return str(self.source)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": None}

    @classmethod
    def accepts(cls, url: str) -> bool:
        return False

    def classes(self) -> list[str]:
        return self.source.classes()

    def keys(self) -> Iterator[str]:
        return self.source.keys()

    def folders(self) -> list[str]:
        return self.source.folders()

    def files(self) -> dict[str, str]:
        found = self.source.files()
        for source in self.beside.values():
            found |= source.files()
        return found

    def entries(self) -> Iterator[Entry]:
        maps = self._listed()
        maps.execute("UPDATE maps SET used = 0")
        for entry in self.source.entries():
            joined = self._joined(entry, maps)  # its maps have an image, though it may be damaged
            yield entry if entry.problem else joined
        for name in self.beside:
            for key, body in maps.execute("SELECT key, body FROM maps WHERE modality = ? AND NOT "
                                          "used ORDER BY number", (name,)):
                source, _, problem, _ = json.loads(body)
                message = f"no {self.source.modalities[0]} of {self.source} has the key {key!r}"
                yield Entry(key=key, sources={name: source}, problem=(
                    (problem[0], problem[1]) if problem else ("MapWithoutImage", message)))
        self.notes = Counter(self.source.notes)
        for source in self.beside.values():
            self.notes += source.notes

    def read(self, entry: Entry) -> dict[str, bytes]:
        found = self.source.read(_part(entry, self.source.modalities))
        for name, source in self.beside.items():
            found |= source.read(_part(entry, (name,)))
        return found

    def _joined(self, entry: Entry, maps: sqlite3.Connection) -> Entry:
        """An entry with its maps, or with the problem that one of them has."""
        sources, ranges, problem = dict(entry.sources), dict(entry.ranges), None
        stamps = dict(entry.stamps)
        for name, source in self.beside.items():
            row = maps.execute("SELECT number, body FROM maps WHERE modality = ? AND key = ? "
                               "ORDER BY number", (name, entry.key)).fetchone()
            if row is None:
                problem = problem or ("MissingMap", f"{source} has no {name} of the key "
                                      f"{entry.key!r}")
                continue
            maps.execute("UPDATE maps SET used = 1 WHERE number = ?", row[:1])
            sources[name], stretch, wrong, stamp = json.loads(row[1])
            if stamp:
                stamps[name] = stamp
            if stretch:
                ranges[name] = (stretch[0], stretch[1])
            if wrong:
                problem = problem or (wrong[0], wrong[1])
        return dataclasses.replace(entry, sources=sources, ranges=ranges, stamps=stamps,
                                   problem=problem)

    def _listed(self) -> sqlite3.Connection:
        """Where every map lies, in a temporary database on disk."""
        if self._maps is None:
            maps = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file
            maps.execute("CREATE TABLE maps (number INTEGER PRIMARY KEY, modality TEXT, key TEXT, "
                         "body TEXT, used INTEGER)")
            for name, source in self.beside.items():
                maps.executemany(
                    "INSERT INTO maps (modality, key, body, used) VALUES (?, ?, ?, 0)",
                    ((name, entry.key, json.dumps([entry.source, entry.ranges.get(name),
                                                   entry.problem, entry.stamps.get(name)]))
                     for entry in source.entries()))
            maps.execute("CREATE INDEX by_key ON maps (modality, key, number)")
            self._maps = maps
        return self._maps


def _part(entry: Entry, modalities: tuple[str, ...]) -> Entry:
    """An entry with some of its modalities alone."""
    return dataclasses.replace(
        entry, sources={name: entry.sources[name] for name in modalities},
        ranges={name: entry.ranges[name] for name in modalities if name in entry.ranges})
