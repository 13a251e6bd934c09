"""What an evaluation measures: rows that a prior has not seen, samples, and the rows of training.

Letters: N rows, M of a block, n codes of a row.
"""
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from prior.dataset import NO_LABEL, CodeRows, require_codes, spread
from prior.givens import Givens, labels_of
from prior.loading.data import held_out_rows, read_rows
from prior.loading.shards import ShardReader
from prior.model import Prior, PriorConfig
from prior.sampling import SAMPLING, drawing_prior
from prior.sequence import COORDINATES, LABEL
from tokenizer import storage
from tokenizer.evaluation.figures import ReferenceHash
from tokenizer.filters import RowFilter
from tokenizer.one_bucket import OneBucket, bucket_of_size
from tokenizer.tokens import TokenCorpus

BLOCK = 4096
"""Rows of training in memory at once, besides one shard."""

DRAWING = ("seed", "generation", "samples_each", "best_of", "conditions", "num_kept", "hole")
"""What of `prior.sampling.SAMPLING` says how samples were drawn."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRows:
    """Rows that a prior is measured on, none of which it was trained on.

    Attributes:
        rows: in memory; their labels are the prior's.
        numbers: of the rows in the corpus, ascending int64 ``(N,)``.
        corpus: fingerprint of the corpus, which lies at ``url``.
        selection: which of its rows these are, in words.
        training: the rows of the same corpus that the prior was trained on, if of this one.
    """
    rows: CodeRows
    numbers: np.ndarray
    corpus: str
    url: str
    selection: str
    training: "TrainingCodes | None"

    def reference(self, target: str) -> str:
        """A hash over keys and codes; figures with equal ones are over the same rows."""
        digest = ReferenceHash()
        digest.add(self.rows.keys, self.rows.codes[target])
        return str(digest)

    def givens(self, config: PriorConfig, num: int) -> Givens:
        """The conditions of at most ``num`` rows, spread evenly, for samples to take in turn."""
        layout, chosen = config.layout, spread(len(self.rows), num)
        names = [segment.name for segment in layout.conditions]
        if not names:
            return Givens(keys=("",), rows=np.zeros(1, np.int64), conditions={},
                          start=np.zeros((1, 0), np.int64))
        crops = self.rows.codes[COORDINATES][chosen] if COORDINATES in names else None
        return Givens(corpus=self.corpus, url=self.url, rows=self.numbers[chosen], crops=crops,
                      keys=tuple(self.rows.keys[row] for row in chosen),
                      conditions={name: self.rows.segment(layout[name], chosen)
                                  for name in names}, start=np.zeros((len(chosen), 0), np.int64))


@dataclass(frozen=True)
class TrainingCodes:
    """The rows of a corpus that a prior was trained on.

    Attributes:
        reader: of the target's codes.
        keys: of the rows of each shard.
        taken: which rows, bool ``(N,)``.
        held_out: which rows were held out, bool ``(N,)``, whatever filter training had.
    """
    reader: ShardReader
    keys: list[pa.Array]
    taken: np.ndarray
    held_out: np.ndarray

    def __len__(self) -> int:
        return int(self.taken.sum())

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers ``(M,)`` and codes ``(M, n)`` of the rows in order, up to `BLOCK` at a time."""
        first, name = 0, self.reader.columns[0].name
        for shard, size in enumerate(self.reader.sizes):
            rows = np.flatnonzero(self.taken[first:first + size])
            codes = self.reader.codes(shard)[name].reshape(size, -1) if len(rows) else None
            for start in range(0, len(rows), BLOCK):
                part = rows[start:start + BLOCK]
                assert codes is not None
                yield part + first, codes[part]
            first += int(size)

    def read(self, rows: np.ndarray) -> CodeRows:
        """Rows by their numbers, in that order."""
        distinct, places = np.unique(rows, return_inverse=True)
        return read_rows(self.reader, self.keys, distinct).select(places)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Images that a prior drew.

    Attributes:
        rows: codes of the target, and of the maps that they were given, in memory.
        url: of their corpus.
        drawing: how they were drawn, as JSON values; empty where that is not known.
    """
    rows: CodeRows
    url: str
    drawing: dict[str, Any] = field(default_factory=dict)


def measured_rows(config: PriorConfig, corpus: TokenCorpus, limit: int,
                  row_filter: str | None = None) -> MeasuredRows:
    """Rows of a corpus that the prior was not trained on.

    Of a corpus that it was trained on these are the held-out ones, of any other one all; of a
    corpus with buckets those with pictures of the prior's size.

    Args:
        limit: most rows, spread evenly.
        row_filter: only rows for which this expression of `tokenizer.filters` holds; without, of a
            corpus that it was trained on, those that the training's own filter takes.
    Raises:
        ValueError: the codes are of other tokenizers, no row was held out, or none is left.
    """
    if row_filter is None and corpus.manifest.fingerprint in config.fingerprints:
        row_filter = config.row_filter
    corpus = bucket_of_size(corpus, config.spec[config.target].image_size, row_filter)
    require_codes(config.spec, corpus.spec, config.spec.modalities, corpus.url)
    reader = ShardReader(corpus, config.columns)
    keys = reader.shard_keys()
    training = training_codes(config, corpus, keys)
    chosen, selection = _not_trained_on(config, corpus, training)
    if isinstance(corpus, OneBucket):
        chosen = chosen & reader.mask(corpus.rows)
        selection += f", of the bucket {corpus.bucket}"
    if row_filter is not None:
        chosen = chosen & reader.mask(_parsed(corpus, row_filter))
        selection += f", for which {row_filter}"
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        raise ValueError(f"{corpus.url} has no row to measure: {selection}")
    if len(numbers) > limit:
        selection += f"; of these {limit}, spread evenly"
    numbers = numbers[spread(len(numbers), limit)]
    rows = _with_labels(config, read_rows(reader, keys, numbers))
    return MeasuredRows(rows=rows, numbers=numbers, corpus=corpus.manifest.fingerprint,
                        url=corpus.url, selection=selection, training=training)


def _not_trained_on(config: PriorConfig, corpus: TokenCorpus,
                    training: TrainingCodes | None) -> tuple[np.ndarray, str]:
    """Which rows of a corpus the prior was not trained on, bool ``(N,)``, and that in words."""
    if training is None:
        return np.ones(corpus.manifest.num_rows, bool), "all rows, of another corpus"
    if not training.held_out.any():
        raise ValueError(f"the prior was trained on {corpus.url} with no rows held out, so that "
                         "none is left to measure: give another corpus, or train with --held-out")
    return (training.held_out,
            f"held out of training: {config.split.held_out} by {config.split.by}")


def training_codes(config: PriorConfig, corpus: TokenCorpus,
                   keys: list[pa.Array] | None = None) -> TrainingCodes | None:
    """The rows of a corpus that the prior was trained on; nothing if it was not.

    Args:
        keys: of the rows of each shard, where they are read already.
    """
    if corpus.manifest.fingerprint not in config.fingerprints:
        return None
    corpus = bucket_of_size(corpus, config.spec[config.target].image_size)
    reader = ShardReader(corpus, [config.target])
    keys = reader.shard_keys() if keys is None else keys
    held_out = held_out_rows(keys, config.split)
    taken = ~held_out
    if isinstance(corpus, OneBucket):
        taken &= reader.mask(corpus.rows)
    if config.row_filter is not None:
        taken &= reader.mask(_parsed(corpus, config.row_filter))
    return TrainingCodes(reader, keys, taken, held_out)


def _parsed(corpus: TokenCorpus, text: str) -> RowFilter:
    """A filter over the columns of a corpus, all buckets together."""
    return RowFilter.parse(text, corpus.manifest.spec.arrow_schema())


def read_samples(prior: Prior, corpus: TokenCorpus) -> Samples:
    """A finished corpus of samples.

    Raises:
        ValueError: its codes are of other tokenizers than the prior's, or it tells that another
            prior drew them, or none.
    """
    names = [name for name in prior.config.spec.modalities if name in corpus.spec.modalities]
    require_codes(prior.config.spec, corpus.spec, [prior.config.target, *names], corpus.url)
    place, drawing = storage.join(corpus.url, SAMPLING), {}
    if storage.exists(place):
        told = storage.read_json_object(place)
        _require_drawn_by(prior, str(told.get("prior")), corpus.url)
        drawing = {name: told[name] for name in DRAWING if name in told}
    for table in corpus.tables(["key", "source"]):
        for key, source in zip(*(table[name].to_pylist() for name in ("key", "source")),
                               strict=True):
            _require_source(prior, key, source, corpus.url)
    return Samples(rows=CodeRows.load(corpus, names), url=corpus.url, drawing=drawing)


def _require_source(prior: Prior, key: str, source: str, url: str) -> None:
    """Refuse a row whose source is not that of a sample of this prior."""
    drawn_by = drawing_prior(source)
    if drawn_by is None:
        raise ValueError(f"{url} holds no samples: the source of {key} is {source!r}, and a "
                         "sample's names its prior; give what `img2tokens sample` drew")
    _require_drawn_by(prior, drawn_by, url)


def _require_drawn_by(prior: Prior, fingerprint: str, url: str) -> None:
    if fingerprint != prior.fingerprint:
        raise ValueError(f"{url} was drawn by the prior {fingerprint}, not by the one to "
                         f"evaluate, {prior.fingerprint}; give samples of this one")


def _with_labels(config: PriorConfig, rows: CodeRows) -> CodeRows:
    """Rows with labels as the prior numbers its classes."""
    if LABEL not in [condition.name for condition in config.conditions]:
        return rows
    labels = labels_of(config, rows)
    labels = np.where(labels == len(config.classes), NO_LABEL, labels).astype(np.int32)
    return dataclasses.replace(rows, labels=labels, classes=config.classes)
