"""The rows that a training goes through, and those that it holds out."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prior.dataset import CodeRows, Columns, joined, row_bytes, row_columns, spread
from prior.loading.cache import cached_rows
from prior.loading.config import LoaderConfig, Mixture
from prior.loading.orders import MIXTURE, Choice
from prior.loading.shards import ShardReader, image_numbers
from prior.loading.streams import MappedStream, MixedStream, Stream, WindowedStream
from tokenizer.filters import RowFilter
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows of each corpus, and how they are read.

    Attributes:
        modalities: whose codes are read, and ``coordinates`` for the records of crops.
        split: which keys are held out; of each corpus of a mixture its own.
        num_held_out: most held-out rows that are loaded of each corpus, spread over all of them.
        row_filter: the rows for which this expression of `tokenizer.filters` holds count alone,
            held out or not; nothing for all rows.
        loader: how training goes through them.
        seed: of the order.
        cache: local folder for the codes that are mapped into memory.
    """
    modalities: tuple[str, ...]
    split: Split
    num_held_out: int
    row_filter: str | None = None
    loader: LoaderConfig
    seed: int
    cache: str


@dataclass(frozen=True)
class TrainingRows:
    """What a training reads.

    Attributes:
        stream: the rows to train on.
        held_out: rows to measure, in memory.
    """
    stream: Stream
    held_out: CodeRows


def open_rows(mixture: Mixture, selection: Selection) -> TrainingRows:
    """The rows of a corpus or a mixture for training.

    Raises:
        FileNotFoundError, ValueError: a shard or its receipt is missing or damaged, a code or label
            lies outside what the manifest says, or no row would be left to train on.
        OSError: the cache cannot be written.
    """
    if len(mixture.corpora) == 1:
        return _open(mixture.first, selection, selection.seed)
    words = np.random.SeedSequence([selection.seed, MIXTURE]).generate_state(len(mixture.corpora))
    parts = [_open(corpus, selection, int(seed))
             for corpus, seed in zip(mixture.corpora, words, strict=True)]
    return TrainingRows(
        MixedStream([part.stream for part in parts], mixture.weights, selection.seed),
        _joined([part.held_out for part in parts]))


def _open(corpus: TokenCorpus, selection: Selection, seed: int) -> TrainingRows:
    """The rows of one corpus."""
    if not corpus.manifest.num_rows:
        raise ValueError(f"{corpus.url} holds no rows")
    num_bytes = row_bytes(row_columns(corpus.spec, selection.modalities))
    if selection.loader.is_exact(num_bytes * corpus.manifest.num_rows):
        return _exact(corpus, selection, seed)
    return _windowed(corpus, selection, seed)


def _exact(corpus: TokenCorpus, selection: Selection, seed: int) -> TrainingRows:
    cached = cached_rows(corpus, selection.modalities, selection.cache)
    choice, held_out = _divide(corpus, selection, cached.keys, seed)
    columns = {name: column[held_out] for name, column in cached.columns.items()}
    return TrainingRows(MappedStream(cached.columns, choice, seed),
                        _rows(corpus, cached.keys, held_out, columns))


def _windowed(corpus: TokenCorpus, selection: Selection, seed: int) -> TrainingRows:
    reader = ShardReader(corpus, selection.modalities)
    keys = reader.shard_keys()
    choice, held_out = _divide(corpus, selection, keys, seed)
    stream = WindowedStream(reader, choice, selection.loader.window_rows, seed)
    return TrainingRows(stream, read_rows(reader, keys, held_out))


def read_rows(reader: ShardReader, keys: Sequence[pa.Array], rows: np.ndarray) -> CodeRows:
    """Some rows of a corpus in memory; only their shards are read.

    Args:
        keys: of the rows of each shard.
        rows: numbers of rows of the corpus, ascending int64.
    """
    first_rows = np.concatenate([[0], np.cumsum(reader.sizes)])
    shards = np.searchsorted(first_rows, rows, "right") - 1
    parts: list[Columns] = []
    # Without rows the first shard says what the columns are like.
    for shard in np.unique(shards) if len(shards) else [0]:
        within = rows[shards == shard] - first_rows[shard]
        parts.append({name: column[within] for name, column in reader.codes(int(shard)).items()})
    return _rows(reader.corpus, keys, rows, joined(parts))


def _divide(corpus: TokenCorpus, selection: Selection, keys: Sequence[pa.Array],
            seed: int) -> tuple[Choice, np.ndarray]:
    """What training goes over, and the rows to measure, ascending int64."""
    is_held_out = held_out_rows(keys, selection.split)
    taken = np.ones(len(is_held_out), bool)
    if selection.row_filter is not None:
        parsed = RowFilter.parse(selection.row_filter, corpus.manifest.spec.arrow_schema())
        taken = ShardReader(corpus, selection.modalities).mask(parsed)
    rows, held_out = np.flatnonzero(taken & ~is_held_out), np.flatnonzero(taken & is_held_out)
    if not len(rows):
        raise ValueError(f"{corpus.url}: no row is left to train on; hold out fewer, or filter "
                         "less")
    images = image_numbers(keys)[rows] if selection.loader.crops == "one" else None
    return Choice(rows, images, seed), held_out[spread(len(held_out), selection.num_held_out)]


def held_out_rows(keys: Sequence[pa.Array], split: Split) -> np.ndarray:
    """Whether each row is held out, bool ``(N,)``; all rows of one key fall on the same side.

    Args:
        keys: of the rows of each shard.
    Raises:
        ValueError: no key would be left to train on.
    """
    column = pa.chunked_array(keys, pa.string())
    held_out = split.divide(pc.unique(column).to_pylist())[1]
    mask = pc.is_in(column, pa.array(held_out, pa.string()))
    return np.asarray(mask.to_numpy(), bool)


def _rows(corpus: TokenCorpus, keys: Sequence[pa.Array], rows: np.ndarray,
          columns: Columns) -> CodeRows:
    names = pa.chunked_array(keys, pa.string()).take(pa.array(rows)).to_pylist()
    return CodeRows.of(names, columns, corpus.manifest.classes)


def _joined(parts: Sequence[CodeRows]) -> CodeRows:
    columns = joined([part.columns(np.arange(len(part))) for part in parts])
    return CodeRows.of([key for part in parts for key in part.keys], columns, parts[0].classes)
