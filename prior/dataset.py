"""Training rows for a prior, straight from a completed token corpus.

`CodeRows` holds the codes of a corpus in memory at their stored width, 2 or 4 bytes a code.
`Batches` gives batch number ``step`` as a pure function of seed and step, cut among ranks by
position in the batch: a training that stops and resumes, on however many ranks, sees the same rows
in order.

Letters: N rows, B rows of a batch, n codes of a segment, D codes a cell, V its vocabulary.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prior.sequence import LABEL, Segment, SequenceLayout
from tokenizer.schema import codes_array
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

NO_LABEL = -1
"""Label of a row without one."""
ORDER, DROPOUT = 0, 1
"""Streams of random numbers, so that the order of rows and the dropping of conditions differ."""


@dataclass(frozen=True)
class CodeRows:
    """Rows of a corpus in memory.

    Attributes:
        keys: N keys; crops of one image share theirs.
        codes: per modality as stored, ``(N[, D], h, w)``, uint16 or uint32.
        labels: ``(N,)`` int32, `NO_LABEL` where a row has none.
        classes: class names; labels are indices into them.
    """
    keys: list[str]
    codes: dict[str, np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def load(cls, corpus: TokenCorpus, modalities: Sequence[str]) -> "CodeRows":
        """The rows of a corpus with the codes of some modalities.

        Raises:
            ValueError: a modality is not in the corpus, a shard is damaged, or a code or label lies
                outside what the manifest says.
        """
        specs = [corpus.spec[modality] for modality in modalities]
        columns = ["key", "label", *(spec.column for spec in specs)]
        keys: list[str] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in (*modalities, LABEL)}
        for shard, entry in enumerate(corpus.manifest.shards):
            table = corpus.read_shard(shard, columns)
            try:
                for spec in specs:
                    codes = codes_array(spec, table)
                    spec.check_codes(codes)
                    parts[spec.modality].append(codes)
                parts[LABEL].append(_labels(table, len(corpus.manifest.classes)))
            except ValueError as error:
                raise ValueError(f"{entry.name} of {corpus.url}: {error}; `img2tokens inspect "
                                 f"{corpus.url} --verify` lists every damaged shard") from error
            keys += table.column("key").to_pylist()
        joined = {name: np.concatenate(arrays) for name, arrays in parts.items() if arrays}
        if not keys:
            raise ValueError(f"{corpus.url} holds no rows")
        labels = joined.pop(LABEL)
        return cls(keys, joined, labels, corpus.manifest.classes)

    def __len__(self) -> int:
        return len(self.keys)

    def is_held_out(self, split: Split) -> np.ndarray:
        """Whether each row is held out, bool ``(N,)``; all rows of one key fall on the same side.

        Raises:
            ValueError: no key would be left to train on.
        """
        return np.isin(self.keys, split.divide(self.keys)[1])

    def select(self, rows: np.ndarray) -> "CodeRows":
        """Some of the rows: indices, or bool ``(N,)``."""
        indices = np.arange(len(self))[rows]
        return CodeRows([self.keys[index] for index in indices],
                        {name: codes[indices] for name, codes in self.codes.items()},
                        self.labels[indices], self.classes)

    def segment(self, segment: Segment, indices: np.ndarray) -> np.ndarray:
        """A segment's codes of some rows in sequence, ``(B, n)`` int64; V for no label."""
        if segment.name == LABEL:
            labels = self.labels[indices].astype(np.int64)
            return np.where(labels == NO_LABEL, segment.null, labels)[:, None]
        return segment.to_sequence(self.codes[segment.name][indices])


@dataclass(frozen=True)
class Batch:
    """Rows as a prior reads them.

    Attributes:
        conditions: per condition ``(B, n)`` int64 in ``[0, V]``, V where it is dropped.
        codes: of the target, ``(B, n)`` int64.
    """
    conditions: dict[str, Tensor]
    codes: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        conditions = {name: codes.to(device) for name, codes in self.conditions.items()}
        return Batch(conditions, self.codes.to(device))

    def split(self, num_parts: int) -> "list[Batch]":
        """The same rows in equal parts."""
        codes = self.codes.chunk(num_parts)
        conditions = {name: given.chunk(num_parts) for name, given in self.conditions.items()}
        return [Batch({name: parts[index] for name, parts in conditions.items()}, part)
                for index, part in enumerate(codes)]


class Batches:
    """Batches without end: each pass over the rows is one exact permutation, seeded anew.

    Args:
        rows: to train on.
        layout: which segments a batch holds.
        batch_size: B over all ranks.
        seed: of the order and of the dropping of conditions.
        dropout: per condition, how often it is dropped.
        drop_all: how often all conditions are dropped together.
    """

    def __init__(self, rows: CodeRows, layout: SequenceLayout, batch_size: int, seed: int,
                 dropout: Mapping[str, float], drop_all: float) -> None:
        self.rows, self.layout = rows, layout
        self.batch_size, self.seed = batch_size, seed
        self.dropout, self.drop_all = dropout, drop_all

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of one pass, int64 ``(N,)``."""
        return _permutation(len(self.rows), self.seed, epoch)

    def indices(self, step: int) -> np.ndarray:
        """Rows of a batch, int64 ``(B,)``: the next B of all passes laid end to end."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(places, len(self.rows))
        return np.concatenate([self.order(int(epoch))[places[epochs == epoch]]
                               for epoch in np.unique(epochs)])

    def batch(self, step: int, rank: int = 0, num_ranks: int = 1) -> Batch:
        """One rank's part of a batch: every ``num_ranks``-th row from ``rank`` on."""
        part = slice(rank, None, num_ranks)
        batch = assemble(self.rows, self.layout, self.indices(step)[part])
        draws = np.random.default_rng([self.seed, DROPOUT, step]).random(
            (self.batch_size, 1 + len(self.layout.conditions)))[part]
        for index, segment in enumerate(self.layout.conditions, start=1):
            dropped = ((draws[:, 0] < self.drop_all)
                       | (draws[:, index] < self.dropout.get(segment.name, 0.0)))
            batch.conditions[segment.name][torch.from_numpy(dropped)] = segment.null
        return batch


def assemble(rows: CodeRows, layout: SequenceLayout, indices: np.ndarray) -> Batch:
    """The rows at ``indices`` with all their conditions."""
    tensors = {segment.name: torch.from_numpy(rows.segment(segment, indices))
               for segment in layout.segments}
    codes = tensors.pop(layout.target.name)
    return Batch(tensors, codes)


def _labels(table: pa.Table, num_classes: int) -> np.ndarray:
    labels = table.column("label").fill_null(NO_LABEL).to_numpy().astype(np.int32)
    given = labels[labels != NO_LABEL]
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), the number of classes, "
                         f"got {given.min()} to {given.max()}")
    return labels


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)
