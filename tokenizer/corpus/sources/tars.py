"""Tar files in WebDataset's layout: the members of one sample share a name up to its first dot.

    cat/000123.jpg  cat/000123.segmentation.png  cat/000123.cls  cat/000123.txt  cat/000123.json

Archives are gone through once, by their headers; images are then read by their ranges of bytes, on
any file system that can read ranges. Nothing is unpacked.
"""
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from tokenizer import storage
from tokenizer.corpus.modalities import MODALITIES
from tokenizer.corpus.sources.base import Entry, SourceChanged
from tokenizer.corpus.sources.listed import ListedSource, Record
from tokenizer.corpus.sources.tar_members import (
    BLOCK,
    MAX_PADDING,
    Damage,
    MemberWalk,
    compression,
    is_header,
)
from tokenizer.corpus.sources.tar_samples import Part, Samples, split
from tokenizer.corpus.sources.urls import (
    expand,
    identity,
    names_files,
    require_files,
    stems,
)

COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)

READ_AHEAD = 1 << 20
"""Bytes of a remote archive that are fetched at once while its headers are read."""

MAX_TEXT = 1 << 20
"""Bytes of a member beyond which it is no label, caption or JSON object."""

LABEL, CAPTION, JSON = "cls", "txt", "json"
LABEL_FIELDS, CAPTION_FIELDS = ("label", "cls", "class"), ("caption", "text", "txt")


class TarSource(ListedSource):
    """Uncompressed tar files.

    A modality lies in the members with the suffix of its name (``.depth.png``), the corpus's own
    modality also in those without (``.png``). The suffix may be given instead: for maps as
    ``.seg.png`` or ``column:seg``, for the corpus as ``#column=seg``.

    Args:
        url: one file or, with ``{00..07}`` and ``*``, several.
        options: ``column``; ``keys=files`` lets keys begin with the name of their archive.
    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is compressed, or an option is wrong.
    """
    name: ClassVar[str] = "tar"
    form: ClassVar[str] = "shards/*.tar"
    known_options = ("column", "keys")
    key_remedy = "rename one, or let keys begin with the name of their archive: #keys=files"
    key_folders = True

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        super().__init__(url, maps, labels, modality, options)
        if (keys := self.options.get("keys", "members")) not in ("members", "files"):
            raise ValueError(f"keys is members or files, got {keys!r}")
        if COMPRESSED.search(url):
            raise ValueError(f"{url} is compressed, and no part of it can be read alone; unpack it "
                             "to a .tar file: images hardly shrink")
        self.urls = expand(url)
        require_files(self.urls)
        self._stems = dict(zip(self.urls, stems(self.urls), strict=True))
        self._identities: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_identities": {}}

    @classmethod
    def accepts(cls, url: str) -> bool:
        return names_files(url, (".tar",)) or COMPRESSED.search(url) is not None

    def identities(self) -> dict[str, str]:
        return self._identities

    def records(self, notes: Counter[str]) -> Iterator[Record]:
        for url in self.urls:
            with Samples() as samples:
                damages = list(self._walk(url, samples, notes))
                for key, parts in samples:
                    yield from self._records_of(url, key, parts, notes)
            for damage in damages:
                yield self._lost(url, damage)

    def read(self, entry: Entry) -> dict[str, bytes]:
        return {modality: self._read_range(url, *entry.ranges[modality])
                for modality, url in entry.sources.items()}

    def _walk(self, url: str, samples: Samples, notes: Counter[str]) -> Iterator[Damage]:
        """Put the members of one archive into ``samples``; yields what is damaged."""
        fs, path = storage.locate(url)
        with storage.remote_errors(url):
            size_and_tag = identity(url)
            with fs.open(path, "rb", block_size=READ_AHEAD) as file:
                file.seek(0, 2)
                size = file.tell()
                file.seek(0)
                if kind := compression(file.read(6)):
                    raise ValueError(f"{url} is compressed with {kind}, and no part of it can be "
                                     "read alone; unpack it first: images hardly shrink")
                walk = MemberWalk(file, size, self._is_text)
                for found in walk:
                    if isinstance(found, Damage):
                        yield found
                    elif posixpath.basename(found.name).startswith("."):
                        notes["hidden members"] += 1
                    else:
                        samples.add(found)
        if walk.num_zeros > MAX_PADDING:
            notes["blocks of zeros at the end of archives, more than padding"] += walk.num_zeros
        self._identities[url] = f"{size_and_tag}, headers sha256:{walk.digest.hexdigest()}"

    def _is_text(self, name: str, size: int) -> bool:
        """Whether a member is a label, caption or JSON object."""
        own = getattr(self.labels, "column", None)
        return size <= MAX_TEXT and split(name)[1] in (LABEL, CAPTION, JSON, own)

    def _records_of(self, url: str, key: str, parts: list[Part],
                    notes: Counter[str]) -> Iterator[Record]:
        """The record of one sample, then one for each surplus member."""
        name = f"{self._stems[url]}/{key}" if self.options.get("keys") == "files" else key
        found: dict[str, Part] = {}
        rest, surplus = list(parts), []
        for modality in self.modalities:
            ours = self._parts_of(modality, rest)
            rest = [part for part in rest if part not in ours]
            if ours:
                found[modality] = ours[0]
            surplus += [Record(key=name, sources={modality: _source(url, part)}, problem=(
                "DuplicateKey", f"{ours[0].name} is already the {modality} of this key; remove one"
            )) for part in ours[1:]]
        texts = {part.suffix: part for part in rest if part.content is not None}
        others = [part for part in rest if part.content is None]
        if not found and (strays := self._strays(others)):
            others = [part for part in others if part not in strays]
            for part in strays:
                stem = posixpath.splitext(posixpath.basename(part.name))[0]
                yield from self._records_of(
                    url, posixpath.join(posixpath.dirname(key), stem),
                    [part._replace(suffix=_last_suffix(part.name)), *texts.values()], notes)
            texts = {}
        notes.update(f".{part.suffix} members" if part.suffix else "suffixless members"
                     for part in others)
        if found:
            yield self._record(url, name, found, texts)
            yield from surplus
        else:
            notes.update(f".{suffix} members without {self.modalities[0]}" for suffix in texts)

    def _record(self, url: str, key: str, found: dict[str, Part],
                texts: dict[str, Part]) -> Record:
        """One record, from the members of its modalities and its texts."""
        problem = self._problem(key, found)
        label = caption = None
        try:
            label, caption = self._label_and_caption(texts)
        except ValueError as error:
            problem = problem or ("DamagedText", str(error))
        return Record(
            key=key, label=label, caption=caption, problem=problem,
            sources={name: _source(url, part) for name, part in found.items()},
            ranges={name: (part.offset, part.size) for name, part in found.items()})

    def _problem(self, key: str, found: dict[str, Part]) -> tuple[str, str] | None:
        """What is wrong with a sample by its headers alone."""
        first = self.modalities[0]
        for modality in self.modalities:
            if modality not in found:
                wanted = self.columns[modality] or modality
                return ("MissingMap" if modality != first else "MapWithoutImage",
                        f"the sample {key} has no {modality} member .{wanted}, with suffix "
                        f"{', '.join(MODALITIES[modality].suffixes)}")
        for modality, part in found.items():
            if part.problem is not None:
                kind = "NotAFile" if "store the file" in part.problem else "TruncatedArchive"
                return kind, f"{part.name}, the {modality} of {key}: {part.problem}"
        return None

    def _parts_of(self, modality: str, parts: list[Part]) -> list[Part]:
        """The members that hold a modality; those that name it come before those that do not."""
        column, suffixes = self.columns[modality], MODALITIES[modality].suffixes
        named = (column or modality).lower()
        exact = [part for part in parts
                 if part.suffix == named or part.suffix in {named + end for end in suffixes}]
        if exact or column is not None or modality != self.modalities[0]:
            return exact
        return [part for part in parts if f".{part.suffix}" in suffixes]

    def _strays(self, parts: list[Part]) -> list[Part]:
        """Images whose names have dots before the suffix, where these are no map's name."""
        first = self.modalities[0]
        if self.columns[first] is not None:
            return []
        return [part for part in parts
                if f".{_last_suffix(part.name)}" in MODALITIES[first].suffixes
                and part.suffix.rpartition(".")[0] not in MODALITIES]

    def _label_and_caption(self, texts: dict[str, Part]) -> tuple[str | None, str | None]:
        """What the text members of a sample say."""
        column = getattr(self.labels, "column", None)
        said: dict[str, Any] = {}
        if JSON in texts:
            said = _json_object(texts[JSON])
        if column is not None:
            label = (_text(texts[column]) if column in texts
                     else said.get(column.removeprefix("json.")))
        else:
            label = _text(texts[LABEL]) if LABEL in texts else _first(said, LABEL_FIELDS)
        caption = _text(texts[CAPTION]) if CAPTION in texts else _first(said, CAPTION_FIELDS)
        if isinstance(label, bool | float | list | dict):
            raise ValueError(f"{texts[JSON].name}: the label {label!r} is neither a class name nor "
                             "a whole number")
        return (None if label in (None, "") else str(label),
                str(caption) if isinstance(caption, str) and caption else None)

    def _lost(self, url: str, damage: Damage) -> Record:
        """The record of what cannot be found in an archive."""
        message = (f"bytes {damage.start} to {damage.end} of {url} hold no member that can be "
                   f"found: {damage.reason}; what lay there is lost, the rest is read")
        return Record(key=f"{self._stems[url]}#{damage.start}", sources={self.modalities[0]: url},
                      problem=("DamagedArchive", message))

    def _column_of(self, modality: str, value: str) -> str:
        if value.startswith(".") and "/" not in value:
            value = f"column:{value[1:]}"
        return super()._column_of(modality, value)

    def _read_range(self, source: str, offset: int, size: int) -> bytes:
        """The bytes of one member, after a look at its header.

        Raises:
            SourceChanged: the archive has no such member there any more.
        """
        url = self._archive_of(source)
        fs, path = storage.locate(url)
        try:
            with storage.remote_errors(url):
                found = fs.cat_file(path, start=offset - BLOCK, end=offset + size)
        except FileNotFoundError as error:
            raise SourceChanged(f"{url} is not there any more: bring it back") from error
        if len(found) != BLOCK + size or not is_header(found[:BLOCK], size):
            raise SourceChanged(f"{url} has changed since it was listed: {source} is not at byte "
                                f"{offset} any more; bring the old file back, or start over with "
                                "--overwrite")
        return bytes(found[BLOCK:])

    def _archive_of(self, source: str) -> str:
        """The archive that a source names; its path may hold a ``#`` itself."""
        parts = source.split("#")
        return next(url for end in range(1, len(parts))
                    if (url := "#".join(parts[:end])) in self._stems)


def _last_suffix(name: str) -> str:
    return posixpath.splitext(name)[1][1:].lower()


def _source(url: str, part: Part) -> str:
    return f"{url}#{part.name}"


def _text(part: Part) -> str:
    try:
        return (part.content or b"").decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{part.name} is not UTF-8 text: {error}") from error


def _json_object(part: Part) -> dict[str, Any]:
    try:
        value = json.loads(_text(part))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{part.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{part.name} is no JSON object")
    return value


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
