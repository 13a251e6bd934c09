"""What every source is: inputs by key, listed one at a time and read when asked."""
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tokenizer import storage


class InputError(OSError):
    """One input cannot be had, while its source as a whole can."""


class NullImage(InputError):
    """A row of a table has no image where one belongs."""


class SourceChanged(OSError):
    """A file is no longer what it was when it was listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One input of a corpus.

    Attributes:
        key: its stable id, a relative POSIX path without suffix.
        sources: where each modality lies; the source's own modality comes first. A part of a file
            is named after a ``#``, as in ``shards/00.tar#000123.jpg``.
        ranges: first byte and number of bytes of each modality that is a stretch of a file.
        stamps: of each modality that is a file of its own, what changes whenever its content does,
            where the listing tells it: size, and entity tag or time.
        label: index of its class in `Source.classes`, and ``class_name`` the class's name.
        caption: a text about it.
        problem: class and message of an error that was found without reading the files, or nothing.
    """
    key: str
    sources: Mapping[str, str]
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    stamps: Mapping[str, str] = field(default_factory=dict)
    label: int | None = None
    class_name: str | None = None
    caption: str | None = None
    problem: tuple[str, str] | None = None

    @property
    def source(self) -> str:
        """Where it comes from: the URL of its first modality."""
        return next(iter(self.sources.values()))


class Source(ABC):
    """A corpus of images or maps; picklable.

    The entries are the same, in the same order, each time they are listed, so that slices of them
    are disjoint and complete, and any process can read any entry.

    Args:
        url: where it lies.
        maps: where each further modality lies: a folder, or a column or suffix of the corpus.
        labels: where classes and captions come from; see `tokenizer.corpus.labels`.
        modality: what the corpus itself is read for.
        options: settings by name that stood behind a ``#`` of the URL.

    Attributes:
        name: of the kind of source.
        form: how its URL looks, in words, for messages.
        rank: kinds of lower rank are asked first whether a URL is theirs.
        modalities: names of what it reads, its own first.
        notes: files passed over and labels without use, with counts; complete when `entries` has
            been exhausted.
    """
    name: ClassVar[str]
    form: ClassVar[str]
    rank: ClassVar[int] = 0
    modalities: tuple[str, ...]
    notes: Counter[str]

    @abstractmethod
    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        """Raises `FileNotFoundError` or `ValueError` where this cannot be read."""

    @classmethod
    @abstractmethod
    def accepts(cls, url: str) -> bool:
        """Whether this kind of source lies at ``url``."""

    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes; an entry's label is an index into them."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Every input once, without holding them all; keys that are free of problems are unique.

        Raises:
            ValueError: there is not one input.
        """

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """The keys of `entries` alone."""

    @abstractmethod
    def folders(self) -> list[str]:
        """First parts of keys that have several, sorted."""

    def files(self) -> dict[str, str]:
        """Of files that hold many inputs: by URL, what changes whenever their content does."""
        return {}

    def read(self, entry: Entry) -> dict[str, bytes]:
        """The files of one entry by modality.

        Raises:
            InputError, FileNotFoundError, PermissionError: this entry cannot be read.
            OSError: the source cannot be read.
        """
        return {modality: storage.read_bytes(url) for modality, url in entry.sources.items()}
