"""The same images from every kind of source: have their keys the same codes, at what speed?

    python benchmarks/same_codes.py CORPUS TOKENIZER [--maps FOLDER TOKENIZER] ...

The folder CORPUS, and folders of maps beside it, are laid down as tar files, Parquet files, a list
and a data set of Hugging Face, and are put into a bucket of an S3 server on loopback. Each is
encoded by the job in this process. Printed is a table; it ends with 1 where a key is missing, is
one too many, or has other codes than from the folder, or where other inputs failed. Inputs whose
listing says that they are none, such as images without a map, stay in the folder and the bucket.

To add a kind of source, write it as `as_tars` does and name it in `KINDS`.
"""
import argparse
import contextlib
import io
import logging
import os
import posixpath
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.encode import EncodeConfig, encode_corpus
from tokenizer.codec import modality_of
from tokenizer.corpus.sources import Entry, Source, open_source
from tokenizer.tokens import TokenCorpus

INPUTS_OF_A_FILE = 64

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
               "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class Laid:
    """Inputs as some kind of source.

    Attributes:
        corpus: what names it; ``maps`` the folder or column of each modality of maps.
    """
    corpus: str
    maps: Mapping[str, str] = field(default_factory=dict)


Row = tuple[str, int]
"""Key of an input, and number of its crop."""

Layer = Callable[[Source, str], Laid]
"""Lays the inputs of a source down in a folder."""


def within(source: Source, url: str) -> Laid:
    """A corpus that holds the maps too, in columns."""
    return Laid(f"{url}#column={source.modalities[0]}" if not url.endswith(".tar") else url,
                {name: f"column:{name}" for name in source.modalities[1:]})


def as_tars(source: Source, folder: str) -> Laid:
    """The inputs as tar files, one member for each modality."""
    for number, entries in enumerate(chunks(source)):
        with tarfile.open(posixpath.join(folder, f"{number:05d}.tar"), "w") as archive:
            for entry in entries:
                for modality, content in source.read(entry).items():
                    suffix = posixpath.splitext(entry.sources[modality])[1]
                    named = "" if modality == source.modalities[0] else f".{modality}"
                    info = tarfile.TarInfo(f"{entry.key}{named}{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return within(source, posixpath.join(folder, "*.tar"))


def as_parquet(source: Source, folder: str) -> Laid:
    """The inputs as Parquet files, one column for each modality."""
    for number, entries in enumerate(chunks(source)):
        rows = [{"key": entry.key, **source.read(entry)} for entry in entries]
        pq.write_table(pa.Table.from_pylist(rows), posixpath.join(folder, f"{number:05d}.parquet"),
                       row_group_size=INPUTS_OF_A_FILE // 4)
    return within(source, posixpath.join(folder, "*.parquet"))


def as_list(source: Source, folder: str) -> Laid:
    """The inputs as paths in a table."""
    rows = [{"key": entry.key, **{name: os.path.abspath(url)
                                  for name, url in entry.sources.items()}}
            for entry in sound(source)]
    url = posixpath.join(folder, "list.parquet")
    pq.write_table(pa.Table.from_pylist(rows), url)
    return within(source, url)


def as_dataset(source: Source, folder: str) -> Laid:
    """The inputs as a data set that is saved on disk."""
    import datasets
    datasets.disable_progress_bars()
    rows = [{"key": entry.key, **source.read(entry)} for entry in sound(source)]
    datasets.Dataset(pa.Table.from_pylist(rows)).save_to_disk(folder)
    return within(source, folder)


KINDS: dict[str, Layer] = {"tar": as_tars, "parquet": as_parquet, "list": as_list,
                           "datasets": as_dataset}
"""Kinds of sources on a disk, but for the folder."""


def sound(source: Source) -> Iterator[Entry]:
    """The inputs of which the listing knows nothing bad."""
    return (entry for entry in source.entries() if entry.problem is None)


def chunks(source: Source) -> Iterator[list[Entry]]:
    """These inputs, so many at a time as go into one file."""
    entries = sound(source)
    while some := list(islice(entries, INPUTS_OF_A_FILE)):
        yield some


@contextlib.contextmanager
def bucket_on_loopback() -> Iterator[str]:
    """A bucket of an S3 server, to which ``s3://`` leads while the block runs."""
    from moto.server import ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with mock.patch.dict(os.environ, {**CREDENTIALS,
                                          "AWS_ENDPOINT_URL": f"http://{host}:{port}"}):
            fsspec.filesystem("s3").mkdir("same-codes")
            yield "s3://same-codes"
    finally:
        server.stop()


def put(folders: Laid, bucket: str) -> Laid:
    """The same folders in a bucket."""
    store = fsspec.filesystem("s3")
    places = {"corpus": folders.corpus, **folders.maps}
    for name, folder in places.items():
        store.put(f"{folder.rstrip('/')}/", f"{bucket}/{name}/", recursive=True)
    return Laid(f"{bucket}/corpus", {name: f"{bucket}/{name}" for name in folders.maps})


def codes_by_key(url: str) -> dict[Row, list[np.ndarray]]:
    """Every row's codes, of all modalities, by its key and crop."""
    corpus = TokenCorpus.open(url)
    names = [code.column for code in corpus.spec.codes]
    return {(row["key"], row["crop_index"]): [np.array(row[name]) for name in names]
            for table in corpus.tables(["key", "crop_index", *names]) for row in table.to_pylist()}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What became of the inputs.

    Attributes:
        codes: of each row, see `codes_by_key`.
        num_dead_letters: how many failed.
        seconds: that the job took.
    """
    codes: Mapping[Row, Sequence[np.ndarray]]
    num_dead_letters: int
    seconds: float

    def num_equal(self, other: "Encoded") -> int:
        """Rows of the other one whose codes are the same here."""
        return sum(row in self.codes and all(map(np.array_equal, codes, self.codes[row]))
                   for row, codes in other.codes.items())

    def is_as(self, other: "Encoded", num_left_out: int) -> bool:
        """Whether rows, codes and failures are the other one's, but for inputs that it had alone.
        """
        return (len(self.codes) == len(other.codes) == self.num_equal(other)
                and self.num_dead_letters == other.num_dead_letters - num_left_out)

    def show(self, kind: str, expected: "Encoded") -> None:
        """Print a line of the table."""
        print(f"| {kind} | {len(self.codes)} | {self.num_dead_letters} | "
              f"{self.num_equal(expected)} of {len(expected.codes)} | {self.seconds:.1f} |",
              flush=True)


@dataclass(frozen=True)
class Comparison:
    """Encodes the same inputs from several sources.

    Attributes:
        folders: where images and maps lie.
        tokenizers: folder of the tokenizer of each modality.
        bucket: of an object store; nothing for sources on a disk alone.
    """
    folders: Laid
    tokenizers: Mapping[str, str]
    bucket: str = ""

    def run(self) -> bool:
        """Print a line for each source, and whether all codes are equal."""
        source = open_source(self.folders.corpus, self.folders.maps, "none",
                             next(iter(self.tokenizers)))
        print("| source | rows | dead letters | codes as from the folder | seconds |\n"
              "|---|---|---|---|---|")
        num_unsound = sum(entry.problem is not None for entry in source.entries())
        expected = self._encoded(self.folders)
        expected.show("folder", expected)
        is_equal = bool(expected.codes)
        for kind in (*KINDS, *(["s3"] if self.bucket else [])):
            with tempfile.TemporaryDirectory() as folder:
                found = self._encoded(put(self.folders, self.bucket) if kind == "s3"
                                      else KINDS[kind](source, folder))
            found.show(kind, expected)
            is_equal &= found.is_as(expected, 0 if kind == "s3" else num_unsound)
        return is_equal

    def _encoded(self, laid: Laid) -> "Encoded":
        with tempfile.TemporaryDirectory() as folder:
            config = EncodeConfig(corpus=laid.corpus, output=f"{folder}/tokens", labels="none",
                                  tokenizers=self.tokenizers, maps=laid.maps)
            began = time.perf_counter()
            manifest = encode_corpus(config)
            return Encoded(seconds=time.perf_counter() - began, codes=codes_by_key(config.output),
                           num_dead_letters=manifest.num_dead_letters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and compare; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("--maps", action="append", default=[], nargs=2,
                        metavar=("FOLDER", "TOKENIZER"))
    options = parser.parse_args(arguments)
    maps = {modality_of(tokenizer): (folder, tokenizer) for folder, tokenizer in options.maps}
    tokenizers = {modality_of(options.tokenizer): options.tokenizer,
                  **{name: tokenizer for name, (_, tokenizer) in maps.items()}}
    folders = Laid(options.corpus, {name: folder for name, (folder, _) in maps.items()})
    with bucket_on_loopback() as bucket:
        is_equal = Comparison(folders, tokenizers, bucket).run()
    print("the same codes from every source" if is_equal else "THE SOURCES DIFFER")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
