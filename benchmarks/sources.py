"""The same images from every kind of source: do their keys have the same codes, at what speed?

    python benchmarks/sources.py CORPUS TOKENIZER [--maps segmentation=FOLDER=TOKENIZER]

The folder CORPUS is laid down as tar files, Parquet files, a list and a data set of Hugging Face;
each is encoded by the job in this process, and its codes are compared with the folder's, by key.
"""
import argparse
import io
import os
import posixpath
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.encode import EncodeConfig, encode_corpus
from tokenizer.corpus.sources import Entry, Source, open_source
from tokenizer.tokens import TokenCorpus

INPUTS_OF_A_FILE = 64


def as_tars(source: Source, folder: str) -> str:
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
    return posixpath.join(folder, "*.tar")


def as_parquet(source: Source, folder: str) -> str:
    """The inputs as Parquet files, one column for each modality."""
    for number, entries in enumerate(chunks(source)):
        rows = [{"key": entry.key, **source.read(entry)} for entry in entries]
        pq.write_table(pa.Table.from_pylist(rows), posixpath.join(folder, f"{number:05d}.parquet"),
                       row_group_size=INPUTS_OF_A_FILE // 4)
    return posixpath.join(folder, "*.parquet#column=" + source.modalities[0])


def as_list(source: Source, folder: str) -> str:
    """The inputs as paths in a table."""
    rows = [{"key": entry.key, **{name: os.path.abspath(url)
                                  for name, url in entry.sources.items()}}
            for entry in source.entries()]
    url = posixpath.join(folder, "list.parquet")
    pq.write_table(pa.Table.from_pylist(rows), url)
    return f"{url}#column={source.modalities[0]}"


def as_dataset(source: Source, folder: str) -> str:
    """The inputs as a data set that is saved on disk."""
    import datasets
    datasets.disable_progress_bars()
    rows = [{"key": entry.key, **source.read(entry)} for entry in source.entries()]
    datasets.Dataset(pa.Table.from_pylist(rows)).save_to_disk(folder)
    return f"{folder}#column={source.modalities[0]}"


KINDS = {"tar": as_tars, "parquet": as_parquet, "list": as_list, "datasets": as_dataset}


def chunks(source: Source) -> Iterator[list[Entry]]:
    """The inputs, so many at a time as go into one file."""
    entries = (entry for entry in source.entries() if entry.problem is None)
    while some := list(islice(entries, INPUTS_OF_A_FILE)):
        yield some


def codes_by_key(url: str) -> dict[str, list[np.ndarray]]:
    """Every row's codes, of all modalities, by its key."""
    corpus = TokenCorpus.open(url)
    names = [f"{modality}_codes" for modality in corpus.spec.modalities]
    return {row["key"]: [np.array(row[name]) for name in names]
            for table in corpus.tables(["key", *names]) for row in table.to_pylist()}


def compare(corpus: str, tokenizers: Mapping[str, str], maps: Mapping[str, str]) -> None:
    """Encode every kind of source and print a line for each."""
    source = open_source(corpus, maps, "none")
    expected: dict[str, list[np.ndarray]] = {}
    print("| source | rows | dead letters | as from the folder | seconds |\n|---|---|---|---|---|")
    for kind in ("folder", *KINDS):
        with tempfile.TemporaryDirectory() as folder:
            url, columns = corpus, dict(maps)
            if kind != "folder":
                os.mkdir(posixpath.join(folder, "source"))
                url = KINDS[kind](source, posixpath.join(folder, "source"))
                columns = {name: f"column:{name}" for name in maps}
            output = posixpath.join(folder, "tokens")
            began = time.perf_counter()
            manifest = encode_corpus(EncodeConfig(corpus=url, output=output, labels="none",
                                                  tokenizers=tokenizers, maps=columns))
            seconds = time.perf_counter() - began
            found = codes_by_key(output)
            expected = expected or found
            equal = sum(key in found and all(map(np.array_equal, codes, found[key]))
                        for key, codes in expected.items())
            print(f"| {kind} | {manifest.num_rows} | {manifest.num_dead_letters} | {equal} of "
                  f"{len(expected)} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("--maps", action="append", default=[], metavar="MODALITY=FOLDER=TOKENIZER")
    options = parser.parse_args()
    maps = [text.split("=") for text in options.maps]
    compare(options.corpus, {"image": options.tokenizer,
                             **{name: tokenizer for name, _, tokenizer in maps}},
            {name: folder for name, folder, _ in maps})


if __name__ == "__main__":
    main()
