"""Bytes that a code takes in a shard, beside the log2(K) bits of uniform codes and other formats.

    python benchmarks/file_sizes.py [--rows 512 4096 16384] [--grid 16] [--corpus TOKENS]

Codes are drawn uniformly, the worst case: no format can go below log2(K)/8 bytes. The same rows,
each with a key, are laid out as

    parquet         a shard as the encode job writes it, with all columns
    parquet codes   its column of codes alone, dictionary and levels included
    npy             one array of uint16 in one file, without keys
    npy a row       one such file for each row, its key being its name
    webdataset      a tar of one ``KEY.npy`` a row
    mds             a shard of mosaicml-streaming: codes, key and offsets
    mds zstd        the same compressed whole with zstd 3

Files are made in memory; those of MDS by its layout (``MDSWriter`` of release 0.13), since the
library needs torchvision. Printed are bytes a code and their ratio to log2(K)/8, as JSON; and these
ratios for other encodings of the column of codes, of a shard with the fewest rows, for uniform
codes, for some that occur as unevenly as a trained tokenizer's, and for those of TOKENS.
"""
import argparse
import io
import itertools
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer import tokens
from tokenizer.schema import GEOMETRY, CodeSpec, TokenSpec, codes_array, rows_table
from tokenizer.tokens import TokenCorpus

CODEBOOK_SIZES = (1024, 16384)

COLUMN = "codes.list.element"
ENCODINGS: dict[str, dict[str, Any]] = {
    "dictionary": {"dictionary_pagesize_limit": 1 << 20},
    "byte stream split": {"use_dictionary": False, "use_byte_stream_split": True},
    "delta": {"use_dictionary": False, "column_encoding": {COLUMN: "DELTA_BINARY_PACKED"}},
    "plain": {"use_dictionary": False}}
"""Encodings of Parquet by name; the first is that of shards."""


def drawn(num_rows: int, grid: int, codebook_size: int) -> np.ndarray:
    """Uniform codes ``(N, h, w)``."""
    shape = (num_rows, grid, grid)
    return np.random.default_rng(0).integers(0, codebook_size, shape, dtype_of(codebook_size))


def dtype_of(codebook_size: int) -> type[np.unsignedinteger]:
    """What stores codes of a codebook."""
    return np.uint16 if codebook_size <= 1 << 16 else np.uint32


def key(row: int) -> str:
    """A key as ImageNet's folders give it."""
    return f"n{1_440_764 + row // 1300 * 11_111:08d}/n{1_440_764 + row // 1300 * 11_111:08d}_{row}"


def shard(codes: np.ndarray, codebook_size: int) -> bytes:
    """A shard as the encode job writes it."""
    num_rows, grid = codes.shape[0], codes.shape[1]
    spec = TokenSpec(codes=(CodeSpec(
        modality="image", grid=(grid, grid), codebook_size=codebook_size,
        image_size=(16 * grid, 16 * grid), tokenizer="sha256:" + "0" * 64),))
    keys = [key(row) for row in range(num_rows)]
    generator = np.random.default_rng(1)
    columns: dict[str, Any] = {
        "key": keys, "source": [f"s3://bucket/imagenet/train/{name}.JPEG" for name in keys],
        "flipped": np.zeros(num_rows, bool), "label": [row // 1300 for row in range(num_rows)],
        "class_name": [name.partition("/")[0] for name in keys],
        **{name: generator.integers(300, 600, num_rows, dtype=np.int32) for name in GEOMETRY}}
    return tokens.parquet_bytes(rows_table(spec, {"image": codes}, columns))


def column_bytes(content: bytes, path: str = "image_codes.list.element") -> int:
    """Bytes of one column of a Parquet file, compressed."""
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(group.column(number).total_compressed_size for group in groups
               for number in range(group.num_columns)
               if group.column(number).path_in_schema == path)


def npy(codes: np.ndarray) -> bytes:
    """An array as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, codes)
    return buffer.getvalue()


def webdataset(codes: np.ndarray) -> bytes:
    """A tar with one ``KEY.npy`` a row."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row, grid in enumerate(codes):
            member = tarfile.TarInfo(f"{key(row)}.npy")
            payload = npy(grid)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    return buffer.getvalue()


def mds(codes: np.ndarray) -> bytes:
    """A shard in MDS layout: count, offsets, settings, then each row's key length, codes, key."""
    side = codes.shape[1]
    settings = json.dumps({
        "column_encodings": [f"ndarray:uint16:{side},{side}", "str"],
        "column_names": ["codes", "key"], "column_sizes": [2 * side * side, None],
        "compression": None, "format": "mds", "hashes": [], "size_limit": 1 << 26,
        "version": 2}, sort_keys=True).encode()
    rows = [np.uint32(len(key(row))).tobytes() + grid.tobytes() + key(row).encode()
            for row, grid in enumerate(codes)]
    offsets = np.array([0, *map(len, rows)], np.uint32).cumsum(dtype=np.uint32)
    offsets += np.uint32(4 + offsets.nbytes + len(settings))
    return np.uint32(len(rows)).tobytes() + offsets.tobytes() + settings + b"".join(rows)


def mds_zstd(codes: np.ndarray) -> bytes:
    """The same, compressed whole."""
    return bytes(pa.Codec("zstd", compression_level=3).compress(mds(codes), asbytes=True))


OTHERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "npy": npy, "npy a row": lambda codes: b"".join(map(npy, codes)), "webdataset": webdataset,
    "mds": mds, "mds zstd": mds_zstd}
"""Other formats by name: codes ``(N, h, w)`` as files."""


def measure(num_rows: int, grid: int, codebook_size: int) -> dict[str, dict[str, float]]:
    """Bytes a code of each format, and the ratio to log2(K)/8."""
    codes = drawn(num_rows, grid, codebook_size)
    parquet = shard(codes, codebook_size)
    num_bytes = {"parquet": len(parquet), "parquet codes": column_bytes(parquet),
                 **{name: len(write(codes)) for name, write in OTHERS.items()}}
    least = math.log2(codebook_size) / 8
    return {name: {"bytes_per_code": round(number / codes.size, 4),
                   "ratio": round(number / codes.size / least, 4)}
            for name, number in num_bytes.items()}


def drawn_unevenly(num_rows: int, grid: int, codebook_size: int) -> np.ndarray:
    """Codes ``(N, h, w)`` of which about three quarters of K are in use, by perplexity."""
    generator = np.random.default_rng(0)
    weights = 1 / (np.arange(codebook_size) + codebook_size / 16)
    ranks = generator.choice(codebook_size, (num_rows, grid, grid), p=weights / weights.sum())
    return generator.permutation(codebook_size).astype(dtype_of(codebook_size))[ranks]


def encoded(codes: np.ndarray, codebook_size: int) -> dict[str, float]:
    """The ratio to log2(K)/8 of a column of codes in each encoding."""
    values = pa.array(codes.reshape(-1))
    table = pa.table({"codes": pa.FixedSizeListArray.from_arrays(values, codes[0].size)})
    ratios = {}
    for name, settings in ENCODINGS.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", compression_level=1,
                       write_statistics=False, **settings)
        least = codes.size * math.log2(codebook_size) / 8
        ratios[name] = round(column_bytes(buffer.getvalue(), COLUMN) / least, 4)
    return ratios


def stored(url: str, num_rows: int) -> dict[str, dict[str, float]]:
    """The same of the first rows of a token corpus, by modality."""
    corpus = TokenCorpus.open(url)
    ends = itertools.accumulate(entry.rows for entry in corpus.manifest.shards)
    num_shards = 1 + sum(end < num_rows for end in ends)
    ratios = {}
    for code in corpus.spec.codes:
        tables = itertools.islice(corpus.tables([code.column]), num_shards)
        codes = np.concatenate([codes_array(code, table) for table in tables])[:num_rows]
        ratios[code.modality] = encoded(codes, code.codebook_size)
    return ratios


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 4096, 16384])
    parser.add_argument("--grid", type=int, default=16, help="codes along one side")
    parser.add_argument("--corpus", metavar="TOKENS", help="a token corpus")
    options = parser.parse_args(arguments)
    rows, grid = min(options.rows), options.grid
    print(json.dumps({
        **{f"K={size}": {f"{rows} rows": measure(rows, grid, size) for rows in options.rows}
           for size in CODEBOOK_SIZES},
        "encodings": {f"K={size}": {kind: encoded(draw(rows, grid, size), size) for kind, draw in
                                    (("uniform", drawn), ("uneven", drawn_unevenly))}
                      for size in (*CODEBOOK_SIZES, 1 << 18)},
        "corpus": stored(options.corpus, rows) if options.corpus else {}}, indent=1))


if __name__ == "__main__":
    main()
