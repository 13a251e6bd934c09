"""Shuffled batches of stored codes as int64 tensors: our loader beside others, on one core.

    python benchmarks/loader.py [--rows 65536] [--rounds 5] [--cpu-time]

    windows     `prior.loading`: rows of a window of shards shuffled, straight from Parquet
    cache       the same from mapped arrays, all rows shuffled; making them is told apart

and those of Hugging Face `datasets`, `litdata` and `mosaicml-streaming`, as `loader_peers.py` sets
them up; of a package with several ways the fastest counts.

All run on one core in one process, in turn, so that they meet the same state of the machine;
medians of rows per second count. Each round is one epoch. All are opened once, and go through an
epoch that does not count: in it shards are held against their checksums, and the codes of each must
add up to those of the corpus. On a machine that does other work meanwhile, ``--cpu-time`` counts
the seconds of the processor alone. What is not installed is left out, and how to install it is
said: the last two ask for torchvision, which this project does without, and so can they here.
"""
import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pyarrow as pa
import torch
from loader_peers import BATCH_SIZE, PEERS, WINDOW_ROWS, Epochs, others
from torch import Tensor

from prior.loading.batches import Batches
from prior.loading.cache import cached_rows
from prior.loading.orders import Choice
from prior.loading.shards import ShardReader
from prior.loading.streams import MappedStream, Stream, WindowedStream
from prior.model import PriorConfig
from tokenizer.audit import complete
from tokenizer.memory import keep_freed_memory
from tokenizer.schema import CodeSpec, TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus, commit_shard

GRID, CODEBOOK_SIZE = (16, 16), 1024
SHARD_ROWS = 1024

OURS = ("windows", "cache")
"""Ways of our loader."""


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
    """What is measured, by name."""
    return {"windows": windows(corpus), "cache": from_cache(corpus, f"{folder}/cache"),
            **others(corpus, f"{folder}/others")}


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
    print(f"{'':<24}{'rows/s':>10} {'windows':>9} {'cache':>9}")
    for name, value in medians.items():
        print(f"{name:<24}{value:>10,.0f} {medians['windows'] / value:>8.2f}x "
              f"{medians['cache'] / value:>8.2f}x")
    for package, peer in PEERS.items():
        if ways := [medians[name] for name in peer.ways if name in medians]:
            ratios = ", ".join(f"{name} {medians[name] / max(ways):.2f}x" for name in OURS)
            print(f"beside the fastest way of {package}: {ratios}")


if __name__ == "__main__":
    main()
