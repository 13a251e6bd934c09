"""A file for each picture, named by key.

    OUT/<key>.png             with one modality
    OUT/<modality>/<key>.png  with several
"""
import itertools
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from pipelines.names import SUFFIXES
from pipelines.sinks.base import SHARD_FILE, Item, ShardWriter, Sink
from tokenizer import storage


@dataclass(frozen=True, kw_only=True)
class FolderSink(Sink):
    """A file for each picture; it is written by the thread that has made it."""
    name: ClassVar[str] = "folder"

    def path(self, name: str, modality: str, suffix: str) -> str:
        return posixpath.join(modality if len(self.modalities) > 1 else "", name + suffix)

    def put(self, item: Item) -> None:
        for modality, (content, suffix) in item.files.items():
            path = self.path(item.name, modality, suffix)
            storage.write_bytes(storage.join(self.output, path), content)

    def writer(self, shard: int) -> ShardWriter:
        return ShardWriter()

    def written(self, index: pa.Table) -> Iterator[tuple[str, int]]:
        if SHARD_FILE in (index.schema.metadata or {}):
            return  # of another sink: these files lie within one
        columns = [name for name in index.column_names if name.endswith("_file")]
        sizes = [index[f"{name.removesuffix('_file')}_bytes"].to_pylist() for name in columns]
        for name, numbers in zip(columns, sizes, strict=True):
            yield from zip(index[name].to_pylist(), numbers, strict=True)

    def left(self, shard: int, names: Iterable[str]) -> Iterator[str]:
        for name, modality, suffix in itertools.product(names, self.modalities, SUFFIXES):
            yield self.path(name, modality, suffix)

    def folders(self, names: Iterable[str]) -> Iterator[str]:
        parents = sorted({posixpath.dirname(name) for name in names})
        for parent, modality in itertools.product(parents, self.modalities):
            yield posixpath.join(modality if len(self.modalities) > 1 else "", parent)
