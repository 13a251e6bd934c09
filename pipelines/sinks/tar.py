"""Tar files in WebDataset's layout, one for each shard.

    OUT/part-00000-of-00016.tar
        <key>.png             with one modality
        <key>.<modality>.png  with several
        <key>.json            key, label, class name, caption, crop

The members of one sample share a name up to its first dot, so dots in the last part of a key are
percent-encoded in names; ``<key>.json`` has the key as it is. `tokenizer.corpus.sources.tars` reads
these files.
"""
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipelines.sinks.base import FileSink, FileWriter, Item, Measured, ShardWriter


@dataclass(frozen=True, kw_only=True)
class TarSink(FileSink):
    """Uncompressed tar files."""
    name: ClassVar[str] = "tar"
    pattern: ClassVar[str] = "*.tar"

    def path(self, name: str, modality: str, suffix: str) -> str:
        return sample_name(name) + (f".{modality}" if len(self.modalities) > 1 else "") + suffix

    def writer(self, shard: int) -> ShardWriter:
        return TarWriter(self, shard)


class TarWriter(FileWriter):
    """One tar file."""

    def __init__(self, sink: TarSink, shard: int) -> None:
        super().__init__(sink.output, sink.file(shard))
        self._sink = sink
        self._archive: tarfile.TarFile | None = None

    def begin(self, file: Measured) -> None:
        self._archive = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def append(self, item: Item) -> None:
        assert self._archive is not None
        for modality, (content, suffix) in item.files.items():
            add_member(self._archive, self._sink.path(item.name, modality, suffix), content)
        add_member(self._archive, f"{sample_name(item.name)}.json", about(item.columns))

    def end(self) -> None:
        assert self._archive is not None
        self._archive.close()


def sample_name(name: str) -> str:
    """A path without dots in its last part, as samples need."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.replace('.', '%2E')}"


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without owner and time, so that equal content gives equal archives."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def about(columns: Mapping[str, Any]) -> bytes:
    """What a row says, without what it leaves open, as JSON."""
    known = {name: value for name, value in columns.items() if value is not None}
    return json.dumps(known, ensure_ascii=False).encode()
