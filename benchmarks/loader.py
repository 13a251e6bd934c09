"""Shuffled batches of stored codes as int64 tensors: our loader beside others, on one core.

    python benchmarks/loader.py [--rows 65536] [--rounds 5] [--cpu-time]

    windows     `prior.loading`: rows of a window of shards shuffled, straight from Parquet
    cache       the same from mapped arrays, all rows shuffled; making them is told apart
    datasets    Hugging Face `datasets`: streamed from the same Parquet files with a shuffle buffer
                (``stream``), and shuffled from the Arrow file that it makes of them (``arrow``),
                each with rows as torch tensors and as NumPy arrays, whichever is faster
    litdata     `litdata.StreamingDataset` over the same Parquet files, shuffled
    streaming   `mosaicml-streaming` from shards of its own format, shuffled

All run on one core in one process, in turn, so that they meet the same state of the machine;
medians of rows per second count. Each round is one epoch. All are opened once, and go through an
epoch that does not count: in it shards are held against their checksums, and the codes of each must
add up to those of the corpus. On a machine that does other work meanwhile, ``--cpu-time`` counts
the seconds of the processor alone. What is not installed is left out and said so: the last two ask
for torchvision, which this project does without.
"""
import argparse
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prior.loading.batches import Batches
from prior.loading.cache import cached_rows
from prior.loading.orders import Choice
from prior.loading.shards import ShardReader
from prior.loading.streams import MappedStream, Stream, WindowedStream
from prior.model import PriorConfig
from tokenizer.audit import complete
from tokenizer.memory import keep_freed_memory
from tokenizer.schema import CodeSpec, TokenSpec, codes_array, rows_table
from tokenizer.tokens import TokenCorpus, commit_shard

GRID, CODEBOOK_SIZE = (16, 16), 1024
BATCH_SIZE, SHARD_ROWS, WINDOW_ROWS = 64, 1024, 4096
COLUMN = "image_codes"

Epochs = Callable[[], Iterable[Tensor]]
"""Begins another epoch: codes in batches, int64 ``(B, h * w)``."""


def write_corpus(url: str, num_rows: int) -> TokenCorpus:
    """A corpus of random codes, as an encode job would leave it."""
    spec = TokenSpec(codes=(CodeSpec(modality="image", grid=GRID, codebook_size=CODEBOOK_SIZE,
                                     image_size=(256, 256), tokenizer="sha256:random"),))
    generator, num_shards = np.random.default_rng(0), -(-num_rows // SHARD_ROWS)
    receipts = []
    for shard, rows in enumerate(np.array_split(np.arange(num_rows), num_shards)):
        codes = generator.integers(0, CODEBOOK_SIZE, (len(rows), *GRID))
        same = {"height": 256, "width": 256, "crop_index": 0, "left": 0, "top": 0,
                "crop_width": 256, "crop_height": 256, "flipped": False, "source": "random"}
        columns = {"key": [f"image-{row:08d}" for row in rows],
                   **{name: [value] * len(rows) for name, value in same.items()}}
        table = rows_table(spec, {"image": codes}, columns)
        receipts.append(commit_shard(url, shard, num_shards, "sha256:random", table))
    complete(url, spec, "sha256:random", receipts, (), num_rows)
    return TokenCorpus.open(url)


def ours(stream: Stream, corpus: TokenCorpus) -> Epochs:
    """Epochs through `Batches`, without what reads ahead of it: that is for idle cores."""
    layout = PriorConfig.of(corpus).layout
    batches = Batches(stream, layout, BATCH_SIZE, 0, {}, 0.0)
    num_steps, starts = len(stream) // BATCH_SIZE, itertools.count()

    def epoch() -> Iterator[Tensor]:
        first = next(starts) * num_steps
        return (batches.batch(step).codes for step in range(first, first + num_steps))
    return epoch


def windows(corpus: TokenCorpus) -> Epochs:
    """Straight from Parquet."""
    reader = ShardReader(corpus, ["image"])
    choice = Choice(np.arange(corpus.manifest.num_rows))
    stream = WindowedStream(reader, choice, WINDOW_ROWS, 0)
    epochs = ours(stream, corpus)

    def epoch() -> Iterator[Tensor]:
        yield from epochs()
        stream._thread.submit(int).result()  # the next one's first window is work of its own
    return epoch


def from_cache(corpus: TokenCorpus, folder: str) -> Epochs:
    """From mapped arrays."""
    columns = cached_rows(corpus, ["image"], folder).columns
    return ours(MappedStream(columns, Choice(np.arange(corpus.manifest.num_rows)), 0), corpus)


def huggingface(files: list[str], folder: str, streaming: bool, kind: str) -> Epochs:
    """Hugging Face `datasets`."""
    from datasets import load_dataset
    rows: Any = load_dataset("parquet", data_files=files, split="train", streaming=streaming,
                             cache_dir=folder, columns=[COLUMN])
    seeds = itertools.count()

    def epoch() -> Iterator[Tensor]:
        seed = next(seeds)
        shuffled = (rows.shuffle(seed=seed, buffer_size=WINDOW_ROWS) if streaming
                    else rows.shuffle(seed=seed, keep_in_memory=True))
        for batch in shuffled.with_format(kind).iter(batch_size=BATCH_SIZE):
            codes = batch[COLUMN]
            yield (codes if isinstance(codes, Tensor)
                   else torch.from_numpy(np.asarray(codes).astype(np.int64))).long()
    return epoch


def litdata(files: list[str], folder: str) -> Epochs:
    """`litdata` over the same files."""
    from litdata import StreamingDataLoader, StreamingDataset, index_parquet_dataset
    from litdata.streaming.item_loader import ParquetLoader
    source = str(Path(files[0]).parent)
    Path(folder).mkdir()
    index_parquet_dataset(source, folder)
    rows = StreamingDataset(source, item_loader=ParquetLoader(), shuffle=True, index_path=folder)
    column = TokenCorpus.open(str(Path(source).parent)).spec.arrow_schema().names.index(COLUMN)

    def collate(items: list[Any]) -> Tensor:
        codes = [item[COLUMN] if isinstance(item, dict) else item[column] for item in items]
        return torch.from_numpy(np.array(codes, np.int64))
    return lambda: StreamingDataLoader(rows, batch_size=BATCH_SIZE, collate_fn=collate)


def mosaic(corpus: TokenCorpus, folder: str) -> Epochs:
    """`mosaicml-streaming` from shards of its own."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader
    with MDSWriter(out=folder, columns={"codes": "ndarray:uint16:256"}) as writer:
        for table in corpus.tables([COLUMN]):
            for row in codes_array(corpus.spec["image"], table):
                writer.write({"codes": row.reshape(-1)})
    rows = StreamingDataset(local=folder, shuffle=True, batch_size=BATCH_SIZE)

    def collate(items: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack([item["codes"] for item in items]).astype(np.int64))
    return lambda: DataLoader(rows, batch_size=BATCH_SIZE, collate_fn=collate)


def rate(epoch: Iterable[Tensor], num_rows: int, clock: Callable[[], float]) -> float:
    """Rows per second of one epoch, to its last batch."""
    started = clock()
    seen = sum(len(codes) for codes in epoch)
    elapsed = clock() - started
    if seen != num_rows:
        raise SystemExit(f"an epoch had {seen} rows, the corpus has {num_rows}")
    return num_rows / elapsed


def warm_up(name: str, epoch: Iterable[Tensor], total: int) -> None:
    """One epoch, whose codes must add up to ``total``."""
    found = 0
    for codes in epoch:
        if codes.dtype != torch.int64 or codes.shape[1] != GRID[0] * GRID[1]:
            raise SystemExit(f"{name} gives {codes.dtype} of shape {tuple(codes.shape)}")
        found += int(codes.sum())
    if found != total:
        raise SystemExit(f"codes of {name} add up to {found}, those of the corpus to {total}")


def contenders(corpus: TokenCorpus, folder: str) -> dict[str, Epochs]:
    """What is measured, by name; says what is left out."""
    files = [str(Path(corpus.url) / entry.name) for entry in corpus.manifest.shards]
    found = {"windows": windows(corpus), "cache": from_cache(corpus, f"{folder}/cache")}
    for way, streaming in (("stream", True), ("arrow", False)):
        for kind in ("torch", "numpy"):
            found[f"datasets {way} {kind}"] = huggingface(files, f"{folder}/datasets", streaming,
                                                          kind)
    others = {"litdata": lambda: litdata(files, f"{folder}/litdata"),
              "streaming": lambda: mosaic(corpus, f"{folder}/streaming")}
    for name, build in others.items():
        if importlib.util.find_spec(name) is not None:
            found[name] = build()
        else:
            print(f"left out: {name} is not installed")
    return found


def main() -> None:
    """Print rows per second of each, and how many times ours are faster."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=65536, help="rows of an epoch; a multiple of "
                                                                f"{BATCH_SIZE}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="count processor seconds")
    arguments = parser.parse_args()
    num_rows = arguments.rows - arguments.rows % BATCH_SIZE
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for limit in (torch.set_num_threads, pa.set_cpu_count, pa.set_io_thread_count):
        limit(1)
    keep_freed_memory()  # as training on a CPU does
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(f"{folder}/tokens", num_rows)
        started = time.perf_counter()
        cached = cached_rows(corpus, ["image"], f"{folder}/cache").columns
        print(f"{num_rows} rows of {GRID[0] * GRID[1]} codes, batches of {BATCH_SIZE}; the cache "
              f"took {time.perf_counter() - started:.2f} s to make")
        measure(contenders(corpus, folder), num_rows, int(cached["image"].sum(dtype=np.int64)),
                arguments.rounds, time.process_time if arguments.cpu_time else time.perf_counter)


def measure(epochs: dict[str, Epochs], num_rows: int, total: int, num_rounds: int,
            clock: Callable[[], float]) -> None:
    """Measure in turn and print the table."""
    for name, epoch in epochs.items():
        warm_up(name, epoch(), total)
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(num_rounds):
        for name, epoch in epochs.items():
            rates[name].append(rate(epoch(), num_rows, clock))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max(value for name, value in medians.items() if name.startswith("datasets"))
    print(f"{'':<24}{'rows/s':>10} {'windows':>9} {'cache':>9}")
    for name, value in medians.items():
        print(f"{name:<24}{value:>10,.0f} {medians['windows'] / value:>8.2f}x "
              f"{medians['cache'] / value:>8.2f}x")
    print(f"beside the fastest way of datasets: windows {medians['windows'] / best:.2f}x, "
          f"cache {medians['cache'] / best:.2f}x")


if __name__ == "__main__":
    main()
