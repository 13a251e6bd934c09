"""Loaders of others over the codes of one corpus, for `loader.py`, each as its manual has it fast.

    datasets    Hugging Face `datasets`: streamed from the corpus's own Parquet files with a shuffle
                buffer (``stream``), and shuffled from the Arrow file that it makes of them
                (``arrow``), each with rows as torch tensors and as NumPy arrays
    litdata     `litdata.StreamingDataset` over the same Parquet files, their one column read by
                pyarrow (``parquet``) and by Polars (``polars``), and over chunks of its own that
                `litdata.optimize` makes for `TokensLoader` (``tokens``), as for language models
    streaming   `mosaicml-streaming` from shards of its own format (``mds``), codes as arrays of
                fixed type and shape

All shuffle in windows. What converts the codes keeps their 16 bits. To add one, write a function
that gives an `Epochs` and list it in `PEERS`.
"""
import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tokenizer.tokens import TokenCorpus

BATCH_SIZE, WINDOW_ROWS = 64, 4096
COLUMN = "image_codes"

CHUNK_ROWS = 8192
"""Rows of a chunk of litdata: the size that its manual takes for tokens."""

Epochs = Callable[[], Iterable[Tensor]]
"""Begins another epoch: codes in batches, int64 ``(B, h * w)``."""


@dataclass(frozen=True)
class Sources:
    """What a loader reads, and where it may write.

    Attributes:
        corpus: of image codes, on this machine.
        folder: for what the loader makes; another one for each.
    """
    corpus: TokenCorpus
    folder: str

    @property
    def files(self) -> list[str]:
        """The corpus's shards."""
        return [str(Path(self.corpus.url) / entry.name) for entry in self.corpus.manifest.shards]

    @property
    def num_codes(self) -> int:
        """Codes of a row."""
        return self.corpus.spec["image"].num_codes


@dataclass(frozen=True)
class Peer:
    """A package and its ways of loading.

    Attributes:
        module: that it imports as.
        ways: by name.
        install: arguments of ``pip install``, in turn, each of one call.
    """
    module: str
    ways: Mapping[str, Callable[[Sources], Epochs]]
    install: tuple[str, ...]


def huggingface(sources: Sources, streaming: bool, kind: str) -> Epochs:
    """Hugging Face `datasets`, with rows as ``torch`` or ``numpy`` has them."""
    from datasets import config, load_dataset
    config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # 5 s, which it waits after each streamed epoch
    rows: Any = load_dataset("parquet", data_files=sources.files, split="train",
                             streaming=streaming, cache_dir=sources.folder, columns=[COLUMN])
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


def litdata_parquet(sources: Sources, low_memory: bool) -> Epochs:
    """`litdata` over the same files: row groups by pyarrow, or whole files by Polars."""
    from litdata import StreamingDataLoader, StreamingDataset, index_parquet_dataset
    from litdata.streaming.item_loader import ParquetLoader
    source = str(Path(sources.files[0]).parent)
    index_parquet_dataset(source, sources.folder)
    loader = ParquetLoader(low_memory=low_memory, columns=[COLUMN])
    rows = StreamingDataset(source, item_loader=loader, shuffle=True, index_path=sources.folder)

    def collate(items: Sequence[Mapping[str, Any]]) -> Tensor:
        return torch.from_numpy(np.array([item[COLUMN] for item in items], np.int64))
    return lambda: StreamingDataLoader(rows, batch_size=BATCH_SIZE, collate_fn=collate)


def litdata_tokens(sources: Sources) -> Epochs:
    """`litdata` over chunks of its own."""
    for name in ("", "DATA_"):
        os.environ[f"DATA_OPTIMIZER_{name}CACHE_FOLDER"] = f"{sources.folder}/{name}cache"
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize
    output, size = f"{sources.folder}/chunks", sources.num_codes
    with contextlib.redirect_stdout(sys.stderr):
        optimize(partial(rows_of, size), sources.files, output, num_workers=1, verbose=False,
                 chunk_size=CHUNK_ROWS * size, item_loader=TokensLoader())
    rows = StreamingDataset(output, item_loader=TokensLoader(block_size=size), shuffle=True)
    return lambda: StreamingDataLoader(rows, batch_size=BATCH_SIZE, collate_fn=stacked)


def rows_of(size: int, file: str) -> Iterator[np.ndarray]:
    """The codes of each row of a shard, ``(size,)`` as stored."""
    column = pq.read_table(file, columns=[COLUMN])[COLUMN].combine_chunks()
    yield from column.flatten().to_numpy().reshape(-1, size)


def mosaic(sources: Sources) -> Epochs:
    """`mosaicml-streaming` from shards of its own."""
    # Its part for pictures is imported with the rest, and is the one that needs torchvision.
    sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))
    from streaming import MDSWriter, StreamingDataset
    size, folder = sources.num_codes, f"{sources.folder}/mds"
    with MDSWriter(out=folder, columns={COLUMN: f"ndarray:uint16:{size}"}) as writer:
        for file in sources.files:
            for row in rows_of(size, file):
                writer.write({COLUMN: row})
    rows = StreamingDataset(local=folder, shuffle=True, batch_size=BATCH_SIZE,
                            num_canonical_nodes=1, predownload=WINDOW_ROWS)

    def collate(items: Sequence[Mapping[str, np.ndarray]]) -> Tensor:
        return stacked([item[COLUMN] for item in items])
    return lambda: DataLoader(rows, batch_size=BATCH_SIZE, collate_fn=collate)


def stacked(rows: Sequence[np.ndarray]) -> Tensor:
    """Rows of 16-bit codes as one int64 tensor."""
    return torch.from_numpy(np.stack(rows).astype(np.int64))


PEERS = {
    "datasets": Peer("datasets", {f"datasets {way} {kind}": partial(huggingface, kind=kind,
                                                                    streaming=way == "stream")
                                  for way in ("stream", "arrow") for kind in ("torch", "numpy")},
                     ("datasets",)),
    "litdata": Peer("litdata", {"litdata parquet": partial(litdata_parquet, low_memory=True),
                                "litdata polars": partial(litdata_parquet, low_memory=False),
                                "litdata tokens": litdata_tokens},
                    ("--no-deps litdata obstore", "polars lightning-utilities boto3 tifffile")),
    "mosaicml-streaming": Peer("streaming", {"streaming mds": mosaic},
                               ("--no-deps mosaicml-streaming",
                                "Brotli python-snappy zstd catalogue xxhash transformers"))}
"""By the name of the package. What it requires in vain, torchvision above all, is not installed."""


def others(corpus: TokenCorpus, folder: str) -> dict[str, Epochs]:
    """Every way of every package that is installed, by name; says what is and what is left out."""
    found = {}
    for package, peer in PEERS.items():
        if importlib.util.find_spec(peer.module) is None:
            calls = " && ".join(f"pip install {words}" for words in peer.install)
            print(f"left out: {package} is not installed; {calls}")
            continue
        print(f"{package} {importlib.metadata.version(package)}")
        for name, build in peer.ways.items():
            place = Path(folder) / name
            place.mkdir(parents=True)
            found[name] = build(Sources(corpus, str(place)))
    return found
