"""Parquet files with pictures as bytes, one for each shard, as Hugging Face `datasets` has them.

    OUT/data/part-00000-of-00016.parquet
        key, crop_index           of the crop
        image, depth, ...         one column for each modality: struct of bytes and path
        label, class_name, ...    what the corpus says of the row, and which crop it is

The schema's metadata names the features, so that `datasets.load_dataset(OUT)` shows pictures and
class names.
"""
import contextlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sinks.base import ABOUT, FileSink, FileWriter, Item, Measured, ShardWriter
from tokenizer.schema import GEOMETRY

ROWS_AT_ONCE = 64
"""Rows of one row group: what a writer holds, and the least that a reader fetches."""

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores a picture."""


@dataclass(frozen=True, kw_only=True)
class ParquetSink(FileSink):
    """Parquet files in the layout of `datasets.Image`."""
    name: ClassVar[str] = "parquet"
    pattern: ClassVar[str] = "data/*.parquet"

    def path(self, name: str, modality: str, suffix: str) -> str:
        return name + suffix

    def writer(self, shard: int) -> ShardWriter:
        return ParquetFileWriter(self, shard)

    def schema(self) -> pa.Schema:
        """Columns, with the features of `datasets` in the metadata."""
        columns = {"key": pa.string(), "crop_index": pa.int32(),
                   **dict.fromkeys(self.modalities, PICTURE), **{name: _type(name)
                                                                 for name in ABOUT}}
        features = {name: self._feature(name, kind) for name, kind in columns.items()}
        return pa.schema(list(columns.items()), {
            "huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)})

    def _feature(self, name: str, kind: pa.DataType) -> dict[str, Any]:
        if name in self.modalities:
            return {"_type": "Image"}
        if name == "label" and self.classes and len(set(self.classes)) == len(self.classes):
            return {"_type": "ClassLabel", "names": list(self.classes)}
        return {"_type": "Value", "dtype": str(kind)}


class ParquetFileWriter(FileWriter):
    """One Parquet file, written a row group at a time."""

    def __init__(self, sink: ParquetSink, shard: int) -> None:
        super().__init__(sink.output, sink.file(shard))
        self._sink, self._schema = sink, sink.schema()
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []

    def begin(self, file: Measured) -> None:
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", compression_level=1,
                                        write_statistics=False)

    def append(self, item: Item) -> None:
        pictures = {modality: {"bytes": content,
                               "path": self._sink.path(item.name, modality, suffix)}
                    for modality, (content, suffix) in item.files.items()}
        self._rows.append({**item.columns, **pictures})
        if len(self._rows) == ROWS_AT_ONCE:
            self._write()

    def end(self) -> None:
        assert self._writer is not None
        if self._rows:
            self._write()
        self._writer.close()

    def give_up(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, ValueError, pa.ArrowException):
                self._writer.close()

    def _write(self) -> None:
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _type(name: str) -> pa.DataType:
    if name == "label":
        return pa.int64()  # what class labels of `datasets` are
    if name == "flipped":
        return pa.bool_()
    return pa.int32() if name in GEOMETRY else pa.string()
