"""WebDataset tar files of codes: the members of one sample share a name up to its first dot.

    part-00000.tar
        cat/000123.npy         integers (C, N), (N,) or (C, h, w); of several modalities
        cat/000123.depth.npy   each with its name
        cat/000123.cls         number of the class
        cat/000123.txt         caption
        cat/000123.json        what else is known; our own: key, class name, crops
"""
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipelines.formats.base import (
    Codes,
    Layout,
    Listed,
    Reader,
    TokenInput,
    UnreadableCodes,
    checked_label,
    file_of,
    load_npy,
    npy_bytes,
    read_range,
)
from pipelines.sinks import Item, Sink
from pipelines.sinks.tar import TarSink
from tokenizer import storage
from tokenizer.corpus.images import Crop
from tokenizer.corpus.sources.tar_members import Damage, Member, MemberWalk
from tokenizer.corpus.sources.tar_samples import Part, Samples, split
from tokenizer.corpus.sources.urls import expand, printable
from tokenizer.schema import GEOMETRY
from tokenizer.stores import StoredFile

MAX_TEXT = 1 << 20
"""Bytes of a member beyond which it is no label, caption or JSON object."""

NPY = "npy"
TEXTS = ("cls", "txt", "json")
CROPS = ("flipped", *GEOMETRY)


@dataclass(frozen=True)
class WebDatasetReader(Reader):
    """Reads one tar file, or several by ``{00..07}`` and ``*``.

    Attributes:
        part: the modality whose members are read, where a sample has several.
    """
    name: ClassVar[str] = "webdataset"
    form: ClassVar[str] = "tar files with KEY.npy, such as codes/*.tar"

    def inputs(self) -> Iterator[Listed]:
        for url in expand(self.url):
            with Samples() as samples:
                for item in members_of(url):
                    if isinstance(item, Damage):
                        yield damaged(url, item)
                        continue
                    stem, suffix = split(item.name)
                    if is_text(stem):
                        samples.add(item)
                    elif is_ours(suffix):
                        yield Listed(key=stem, source=f"{url}#{item.name}",
                                     error="UnreadableText", message="its name is no text")
                for stem, sample in samples:
                    yield from self._listed(url, stem, sample)

    def _listed(self, url: str, stem: str, sample: Sequence[Part]) -> Iterator[Listed]:
        """What the members of one sample say; nothing where they are of something else."""
        found = [part for suffix in (f"{self.part}.{NPY}", NPY)
                 for part in sample if part.suffix == suffix]
        if not found:
            if any(is_ours(part.suffix) for part in sample):
                yield Listed(key=stem, source=source_of(url, sample[0]), error="MissingCodes",
                             message=f"the sample has no member .{NPY} or .{self.part}.{NPY}")
            return
        codes, *surplus = found
        source = source_of(url, codes)
        try:
            if codes.problem is not None:
                raise UnreadableCodes(f"{codes.name}: {codes.problem}")
            texts = {part.suffix: text_in(part) for part in sample if part.suffix in TEXTS}
            listed = listed_sample(stem, source, codes, texts)
        except (ValueError, RecursionError) as error:
            listed = Listed(key=stem, source=source, error="UnreadableSample", message=str(error))
        yield listed
        for part in surplus:
            yield Listed(key=listed.key, source=source_of(url, part), error="DuplicateKey",
                         message=f"{codes.name} already holds the codes of this key")

    def read(self, listed: Listed) -> Codes:
        assert listed.first_byte is not None and listed.num_bytes is not None
        content = read_range(file_of(listed.source), listed.first_byte, listed.num_bytes)
        codes = np.atleast_2d(load_npy(content, listed.source))
        codes = codes.reshape(len(codes), -1)
        if listed.about is None:
            return Codes(codes=codes)
        return crops_of(json.loads(listed.about), codes, listed.source)


@dataclass(frozen=True)
class WebDatasetLayout(Layout):
    """Writes a tar file for each shard, and all columns into ``KEY.json``."""
    name: ClassVar[str] = "webdataset"

    def sink(self, output: str, num_shards: int) -> Sink:
        return CodesSink(output=output, modalities=self.spec.modalities, num_shards=num_shards)

    def items(self, source: TokenInput, name: str) -> list[Item]:
        first = source.rows[0]
        about = {key: value for key, value in first.items() if key not in CROPS}
        files = {modality: (npy_bytes(codes.astype(self.spec[modality].dtype)), ".npy")
                 for modality, codes in source.codes.items()}
        return [Item(name=name, files=files, columns={
            **about, "crop_index": 0, "crops": [{key: row[key] for key in CROPS}
                                                for row in source.rows]})]


@dataclass(frozen=True, kw_only=True)
class CodesSink(TarSink):
    """Tar files of codes, and a card that says so."""
    text: ClassVar[str] = ("# Image tokens\n\n{num_items} samples with codes of {modalities} as "
                           ".npy, of a token corpus.\n")


def members_of(url: str) -> Iterator[Member | Damage]:
    """The members of one archive, texts with their content, and what is damaged."""
    size = storage.size(url)
    if size is None:
        raise FileNotFoundError(f"{url} does not exist")

    def wanted(name: str, num_bytes: int) -> bool:
        return num_bytes <= MAX_TEXT and split(name)[1] in TEXTS
    with StoredFile(url) as file:
        yield from MemberWalk(file, size, wanted)  # type: ignore[arg-type]


def is_text(name: str) -> bool:
    """Whether UTF-8 can hold a name."""
    return printable(name) == name


def is_ours(suffix: str) -> bool:
    """Whether a member with this suffix holds codes, of whatever modality, or says something of
    them."""
    return suffix in TEXTS or suffix.endswith(NPY)


def damaged(url: str, item: Damage) -> Listed:
    """A stretch of an archive as an input that cannot be read."""
    return Listed(key=f"{posixpath.basename(url)}@{item.start}", source=url,
                  error="DamagedArchive", message=f"from byte {item.start} on: {item.reason}")


def source_of(url: str, part: Part) -> str:
    """Where the codes of a sample lie; see `file_of`."""
    return f"{url}#{part.name.replace('#', '%23')}"


def text_in(part: Part) -> str:
    """The content of a label, caption or JSON object.

    Raises:
        ValueError: it was not read, or is not UTF-8.
    """
    if part.content is None:
        raise ValueError(f"{part.name}: {part.problem or f'has more than {MAX_TEXT} bytes'}")
    return part.content.decode()


def listed_sample(stem: str, source: str, codes: Part, texts: Mapping[str, str]) -> Listed:
    """A sample with codes, by what its other members say.

    Raises:
        ValueError, RecursionError: one of them is damaged.
    """
    about = json.loads(texts.get("json", "{}"))
    if not isinstance(about, dict):
        raise ValueError("its .json is no object")
    key = stem if about.get("key") is None else str(about["key"])
    label = texts.get("cls") if about.get("label") is None else about["label"]
    return Listed(key=key, source=source, first_byte=codes.offset, num_bytes=codes.size,
                  label=None if label is None else checked_label(label),
                  class_name=text_of(about, "class_name"),
                  caption=text_of(about, "caption") or texts.get("txt"),
                  about=json.dumps(about, ensure_ascii=False) if "crops" in about else None)


def text_of(about: Mapping[str, Any], name: str) -> str | None:
    """A text that a sample says of itself; nothing where it is something else."""
    value = about.get(name)
    return value if isinstance(value, str) else None


def crops_of(about: Mapping[str, Any], codes: np.ndarray, source: str) -> Codes:
    """Codes with the crops that our own files name.

    Raises:
        UnreadableCodes: they name others.
    """
    try:
        rows = about["crops"]
        crops = [Crop(left=row["left"], top=row["top"], width=row["crop_width"],
                      height=row["crop_height"], flipped=bool(row["flipped"]),
                      index=row["crop_index"]) for row in rows]
        return Codes(codes=codes, crops=crops, size=(rows[0]["height"], rows[0]["width"]))
    except (KeyError, TypeError, IndexError) as error:
        raise UnreadableCodes(f"{source}: its crops lack {error}") from error
