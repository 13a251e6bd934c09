"""The codes of a corpus as plain arrays in files, mapped into memory: made once, read by all.

    FOLDER/codes-<16 digits>/<modality>.npy   ``(N[, D], h, w)`` uint16 or uint32
                             label.npy        ``(N,)`` int32
                             coordinates.npy  ``(N, 7)`` int32, where they are a condition
                             keys.arrow       one record batch of keys for each shard
                             cache.json       what it was made of; written last

The digits are of a hash over what `cache.json` says: the corpus's fingerprint, the checksums of its
shards, and the modalities. Another corpus, or the same made anew, has a folder of its own. The
folder appears whole; processes that make it at the same time end up with one of them. It may be
deleted whenever nobody trains from it.

Letters: N rows, D codes a cell, h and w of a code grid.
"""
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from prior.dataset import Columns, row_columns
from prior.loading.shards import ShardReader
from prior.sequence import LABEL
from tokenizer import configs, storage
from tokenizer.tokens import TokenCorpus

VERSION = 1
CONTENT, KEYS = "cache.json", "keys.arrow"
KEY_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False)])


@dataclass(frozen=True)
class CachedRows:
    """All rows of a corpus, mapped into memory.

    Attributes:
        columns: codes and labels of all N rows; not to be written to.
        keys: of the rows of each shard.
    """
    columns: Columns
    keys: list[pa.Array]


def cached_rows(corpus: TokenCorpus, modalities: Sequence[str], folder: str) -> CachedRows:
    """The rows of a corpus from the cache below ``folder``, which is made where there is none.

    Args:
        corpus: completed.
        modalities: whose codes are kept.
        folder: local folder that may hold the caches of several corpora.
    Raises:
        FileNotFoundError, ValueError: a shard or its receipt is missing or damaged.
        OSError: the folder cannot be written, for example because the disk is full.
    """
    if "://" in folder:
        raise ValueError(f"codes are mapped into memory from a local folder, got {folder}: give "
                         "one of this machine")
    content = _content(corpus, modalities)
    digits = storage.sha256(configs.canonical_json(content).encode())[:16]
    path = Path(folder) / f"codes-{digits}"
    if not _is_whole(path, content):
        storage.remove_unfinished(folder)
        _make(ShardReader(corpus, modalities), path, content)
    return _open(path, modalities)


def _content(corpus: TokenCorpus, modalities: Sequence[str]) -> dict[str, Any]:
    """What the cache of a corpus is made of."""
    manifest = corpus.manifest
    read = row_columns(corpus.spec, sorted({*modalities}))
    return {"version": VERSION, "fingerprint": manifest.fingerprint,
            "shards": [entry.sha256 for entry in manifest.shards],
            "classes": len(manifest.classes), "num_rows": manifest.num_rows,
            "modalities": {column.name: {"shape": list(column.shape), "dtype": column.dtype.name}
                           for column in read}}


def _arrays(content: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array of a cache."""
    num_rows = content["num_rows"]
    return {LABEL: ((num_rows,), np.dtype(np.int32)),
            **{name: ((num_rows, *kind["shape"]), np.dtype(kind["dtype"]))
               for name, kind in content["modalities"].items()}}


def _is_whole(path: Path, content: dict[str, Any]) -> bool:
    """Whether a cache of this content lies at ``path``; one cut short is removed."""
    if not path.exists():
        return False
    sizes = {f"{name}.npy": len(_header(shape, dtype)) + dtype.itemsize * int(np.prod(shape))
             for name, (shape, dtype) in _arrays(content).items()}
    found = storage.list_files(str(path))
    if (storage.read_json_object(str(path / CONTENT)) == content
            and found.keys() == {*sizes, KEYS, CONTENT}
            and all(found[name] == size for name, size in sizes.items())):
        return True
    storage.remove(str(path))
    return False


def _make(reader: ShardReader, path: Path, content: dict[str, Any]) -> None:
    """Write the cache of a corpus; the files appear together, on disk."""
    with storage.writing_folder(str(path), CONTENT) as folder:
        with ExitStack() as open_files:
            files: dict[str, IO[bytes]] = {}
            for name, (shape, dtype) in _arrays(content).items():
                files[name] = open_files.enter_context(_synced(Path(folder) / f"{name}.npy"))
                files[name].write(_header(shape, dtype))
            keys = open_files.enter_context(_synced(Path(folder) / KEYS))
            writer = open_files.enter_context(pa.ipc.new_file(keys, KEY_SCHEMA))
            for shard in range(len(reader.sizes)):
                for name, array in reader.codes(shard).items():
                    files[name].write(np.ascontiguousarray(array).data)
                column = reader.table(shard, ["key"])["key"].combine_chunks()
                writer.write_batch(pa.record_batch([column], schema=KEY_SCHEMA))
        storage.write_bytes(str(Path(folder) / CONTENT),
                            (json.dumps(content, indent=1) + "\n").encode())


def _open(path: Path, modalities: Sequence[str]) -> CachedRows:
    # Plain views: what is taken out of a `numpy.memmap` would be one too, though in memory.
    columns = {name: np.asarray(np.load(path / f"{name}.npy", mmap_mode="r"))
               for name in (LABEL, *modalities)}
    with pa.memory_map(str(path / KEYS)) as source, pa.ipc.open_file(source) as file:
        keys = [file.get_batch(index).column(0) for index in range(file.num_record_batches)]
    return CachedRows(columns, keys)


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What a ``.npy`` file begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                 "shape": shape})
    return buffer.getvalue()


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; on disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
