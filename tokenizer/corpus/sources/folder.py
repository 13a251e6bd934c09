"""Folders of image files, with folders of maps that pair with them by key."""
import dataclasses
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import ClassVar, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tokenizer import storage
from tokenizer.corpus.labels import Labels, OwnLabels, labels_from
from tokenizer.corpus.modalities import MODALITIES, file_modality
from tokenizer.corpus.sources.base import Entry, Source
from tokenizer.corpus.sources.ondisk import sorted_rows
from tokenizer.corpus.sources.urls import local_stamp, printable, require_known, stamp

ARCHIVES = {".tar": "*.tar", ".parquet": "*.parquet", ".csv": "NAME.csv", ".jsonl": "NAME.jsonl"}
"""How a folder's files are given that hold images instead of being some, by suffix."""


class Listed(NamedTuple):
    """What a folder holds, one by one: its name, which folders of S3 may lack, ``file``, ``folder``
    or ``other`` such as a broken link, and the stamp of a file."""
    name: str
    kind: str
    stamp: str = ""


class Item(NamedTuple):
    """A file or folder among those of all modalities; sorts by key.

    Attributes:
        stem: its name without suffix; of a folder its name with a slash, as keys below it have.
        modality: number of the modality it is listed for.
        name, kind, stamp: as in `Listed`.
    """
    stem: str
    modality: int
    name: str
    kind: str
    stamp: str


class FolderSource(Source):
    """A folder of files, with folders of maps that pair with them by key.

    Files are taken by suffix, in all subfolders. Names that start with a dot are hidden and left
    out, and so is a folder of maps that lies inside the corpus. Keys are unique by construction: a
    key is a path without suffix, and files with one key stand together in the order of keys.

    Args:
        url: the folder, on any fsspec file system.
        maps: folder of each further modality.
        labels: where classes and captions come from; see `tokenizer.corpus.labels`.
        modality: what the files of ``url`` are.
    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: a modality is unknown or given twice, or the labels are wrong.
    """

    name: ClassVar[str] = "folder"
    form: ClassVar[str] = "a folder"
    rank: ClassVar[int] = 2

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        require_known(options or {}, (), f"the folder {url}")
        maps = dict(maps or {})
        if modality in maps:
            raise ValueError(f"{modality} is the corpus itself; maps are of other modalities")
        self.url = url
        self.urls = {modality: url, **maps}
        self.modalities = tuple(self.urls)
        for name, folder in self.urls.items():
            _check_folder(name, folder)
        self.labels: Labels = labels_from(labels)
        if isinstance(self.labels, OwnLabels) and self.labels.column is not None:
            raise ValueError(f"--labels {labels}: the folder {url} has no columns; labels of a "
                             "folder are auto, none, regex:PATTERN or a table")
        self.notes = Counter()
        self._maps_inside = {_path_within(url, folder) for folder in maps.values()}
        self._classes: list[str] | None = None

    def __str__(self) -> str:
        return self.url

    @classmethod
    def accepts(cls, url: str) -> bool:
        return storage.is_folder(url)

    def classes(self) -> list[str]:
        if self._classes is None:
            self._classes = self.labels.classes(self)
        return list(self._classes)

    def folders(self) -> list[str]:
        listing = self._list(self.modalities[0], "", Counter())
        return sorted({printable(found.name) for found in listing if found.kind == "folder"})

    def keys(self) -> Iterator[str]:
        return (entry.key for entry in self._walk("", Counter()))

    def entries(self) -> Iterator[Entry]:
        numbers = {name: index for index, name in enumerate(self.classes())}
        notes: Counter[str] = Counter()
        num_images = num_found = 0
        for entry in self._walk("", notes):
            label = self.labels.of(entry.key, entry.key + posixpath.splitext(entry.source)[1])
            num_images += 1
            num_found += label.found
            number = None if label.class_name is None else numbers.get(label.class_name)
            yield dataclasses.replace(entry, label=number, class_name=label.class_name,
                                      caption=label.caption)
        if not num_images:
            raise ValueError(self._nothing_found(notes))
        notes.update(self.labels.notes(num_found, num_images))
        self.notes = +notes

    def _nothing_found(self, notes: Counter[str]) -> str:
        modality = self.modalities[0]
        found = ", ".join(f"{count} {what}" for what, count in sorted(notes.items()))
        meant = next((f"; if the {suffix} files hold them, give {storage.join(self.url, name)}"
                      for suffix, name in ARCHIVES.items()
                      if any(what.startswith(f"{suffix} files") for what in notes)), "")
        return (f"{self.url} holds no {modality} files ({', '.join(MODALITIES[modality].suffixes)})"
                f"; {f'passed over: {found}' if found else 'it is empty'}{meant}")

    def _walk(self, folder: str, notes: Counter[str]) -> Iterator[Entry]:
        """Entries, yet without labels, in one folder and those below it, sorted by key.

        Args:
            folder: its path below the corpus, empty or ending in a slash.
            notes: files passed over are counted here.
        """
        rows = (item for number in range(len(self.modalities))
                for item in self._items(number, folder, notes))
        for stem, same in groupby(sorted_rows(rows, len(Item._fields)), key=itemgetter(0)):
            if stem.endswith("/"):
                yield from self._walk(folder + stem, notes)
            else:
                yield from self._pair(folder, stem, [Item(*row) for row in same])

    def _items(self, number: int, folder: str, notes: Counter[str]) -> Iterator[Item]:
        """The files and folders in one folder of a modality, as the listing has them."""
        modality = self.modalities[number]
        for name, kind, told in self._list(modality, folder, notes):
            stem, suffix = posixpath.splitext(name)
            if kind == "folder":
                yield Item(f"{name}/", number, name, kind, told)
            elif suffix.lower() in MODALITIES[modality].suffixes:
                yield Item(stem, number, name, kind, told)
            else:
                what = printable(suffix) or "suffixless"
                notes[f"{what} files in {self.urls[modality]}"] += 1

    def _pair(self, folder: str, stem: str, items: Sequence[Item]) -> Iterator[Entry]:
        """The entry of one key, then one for each further file of that key."""
        key = printable(folder + stem)
        files: dict[str, list[Item]] = {}
        for item in items:
            files.setdefault(self.modalities[item.modality], []).append(item)
        sources = {modality: printable(storage.join(self.urls[modality], folder + found[0].name))
                   for modality, found in files.items()}
        problem = self._problem(folder + stem, files)
        told = {modality: found[0].stamp for modality, found in files.items()
                if not problem and found[0].stamp}
        yield Entry(key=key, sources=sources, stamps=told, problem=problem)
        first = self.modalities[0]
        for item in files.get(first, [])[1:]:
            url = printable(storage.join(self.url, folder + item.name))
            message = (f"{printable(files[first][0].name)} has the same key {key!r}, which is the "
                       "path without suffix; rename one of them")
            yield Entry(key=key, sources={first: url}, problem=("DuplicateKey", message))

    def _problem(self, path: str, files: dict[str, list[Item]]) -> tuple[str, str] | None:
        """What is wrong with the files of one key, by their names alone."""
        first, *maps = self.modalities
        for modality, ((_, _, name, kind, _), *others) in files.items():
            whole = posixpath.join(posixpath.dirname(path), name)
            if printable(whole) != whole or "::" in whole:
                return ("UnusableName", f"the path of {name!r} is not UTF-8, or it holds '::', "
                        "which no URL can; rename the file or its folder")
            if kind == "other":
                return "NotAFile", f"{name} is neither a file nor a folder; is it a broken link?"
            if others and modality != first:
                return ("DuplicateKey", f"{name} and {others[0].name} are both its {modality} "
                        "map; remove one of them")
        for modality in self.modalities:
            if modality not in files:
                expected = storage.join(self.urls[modality], path)
                kinds = ", ".join(MODALITIES[modality].suffixes)
                error = "MissingMap" if modality in maps else "MapWithoutImage"
                return error, f"there is no {modality} file {expected} with suffix {kinds}"
        return None

    def _list(self, modality: str, folder: str, notes: Counter[str]) -> Iterator[Listed]:
        """One folder of a modality, without what is hidden; empty where it has no such folder."""
        # Listings that the file system keeps would grow with the corpus.
        url = self.urls[modality]
        with storage.remote_errors(url):
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        path = posixpath.join(root, folder).rstrip("/") or root
        inside = self._maps_inside if modality == self.modalities[0] else set()
        try:
            with storage.remote_errors(url):
                for found in (_list_local(root, path) if isinstance(fs, LocalFileSystem)
                              else _list_remote(fs, path)):
                    if not found.name:
                        notes[f"folders without a name, as in a//b, below {url}"] += 1
                    elif found.name.startswith("."):
                        notes["hidden files and folders"] += 1
                    elif found.kind != "folder" or folder + found.name not in inside:
                        yield found
        except (FileNotFoundError, NotADirectoryError):
            return


def _check_folder(modality: str, url: str) -> None:
    if (held := file_modality(modality)) != modality:
        raise ValueError(f"{modality} are computed from {held} files and need no folder of their "
                         f"own; leave out {url}")
    if url.startswith("column:"):
        raise ValueError(f"the maps {url} are a column, and a folder has none; give the folder of "
                         f"the {modality} files")
    if not storage.is_folder(url):
        state = "is a file, not a folder" if storage.exists(url) else "does not exist"
        raise FileNotFoundError(f"{url} {state}; give the folder of the {modality} files")


def _path_within(url: str, inner: str) -> str | None:
    """Path of a folder below ``url``, or nothing where it does not lie there."""
    (fs, root), (inner_fs, path) = storage.locate(url), storage.locate(inner)
    root = root.rstrip("/") + "/"
    return path.rstrip("/")[len(root):] if fs == inner_fs and path.startswith(root) else None


def _list_remote(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[Listed]:
    for item in fs.ls(path, detail=True):
        full = item["name"].rstrip("/")
        if full == path:  # object stores may list a folder's own marker
            if item.get("StorageClass") == "DIRECTORY":  # of keys with two slashes, as S3 tells it
                yield Listed("", "folder")
            continue
        kind = {"file": "file", "directory": "folder"}.get(item["type"], "other")
        yield Listed(posixpath.basename(full), kind, stamp(item) if kind == "file" else "")


def _list_local(root: str, path: str) -> Iterator[Listed]:
    """A local folder; links are followed unless they lead back to a folder above them."""
    with os.scandir(path) as items:
        for item in items:
            is_folder = os.path.isdir(item.path) if item.is_symlink() else item.is_dir()
            is_file = os.path.isfile(item.path) if item.is_symlink() else item.is_file()
            if is_folder and not (item.is_symlink() and _leads_back(root, item.path)):
                yield Listed(item.name, "folder")
            elif is_file:
                yield Listed(item.name, "file", _stamp_of(item))
            else:
                yield Listed(item.name, "other")


def _stamp_of(item: "os.DirEntry[str]") -> str:
    try:
        return local_stamp(item.stat())
    except OSError:  # gone since it was listed; reading it will tell
        return ""


def _leads_back(root: str, link: str) -> bool:
    """Whether a link below ``root`` leads to ``root`` or to a folder on the way to the link."""
    target = os.path.realpath(link)
    above = os.path.dirname(link)
    while len(above) > len(root):
        if os.path.realpath(above) == target:
            return True
        above = os.path.dirname(above)
    return os.path.realpath(root) == target
