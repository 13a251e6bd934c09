"""Rows of a token corpus, and batches of them as a prior reads them.

`CodeRows` holds codes at their stored width, 2 or 4 bytes a code, in memory or mapped from a file.
In which order training goes through them is the matter of `prior.loading`.

Letters: N rows, B rows of a batch, n codes of a segment, D codes a cell, V its vocabulary.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prior.sequence import LABEL, Segment, SequenceLayout
from tokenizer.schema import CodeSpec, codes_array
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

NO_LABEL = -1
"""Label of a row without one."""

Columns = dict[str, np.ndarray]
"""Of some rows: per modality the codes as stored, ``(B[, D], h, w)``, and the labels, ``(B,)``."""


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
        parts: list[Columns] = []
        for shard, entry in enumerate(corpus.manifest.shards):
            table = corpus.read_shard(shard, columns)
            try:
                parts.append(columns_of(table, specs, len(corpus.manifest.classes)))
            except ValueError as error:
                raise ValueError(f"{entry.name} of {corpus.url}: {error}; `img2tokens inspect "
                                 f"{corpus.url} --verify` lists every damaged shard") from error
            keys += table.column("key").to_pylist()
        if not keys:
            raise ValueError(f"{corpus.url} holds no rows")
        return cls.of(keys, joined(parts), corpus.manifest.classes)

    @classmethod
    def of(cls, keys: list[str], columns: Columns, classes: tuple[str, ...]) -> "CodeRows":
        """Rows from their keys and columns."""
        codes = {name: array for name, array in columns.items() if name != LABEL}
        return cls(keys, codes, columns[LABEL], classes)

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

    def columns(self, indices: np.ndarray) -> Columns:
        """Codes and labels of some rows."""
        return {LABEL: self.labels[indices],
                **{name: codes[indices] for name, codes in self.codes.items()}}

    def segment(self, segment: Segment, indices: np.ndarray) -> np.ndarray:
        """A segment's codes of some rows in sequence, ``(B, n)`` int64; V for no label."""
        stored = self.labels if segment.name == LABEL else self.codes[segment.name]
        return in_sequence(segment, stored[indices])


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


def assemble(rows: CodeRows, layout: SequenceLayout, indices: np.ndarray) -> Batch:
    """The rows at ``indices`` with all their conditions."""
    return to_batch(layout, rows.columns(indices))


def to_batch(layout: SequenceLayout, columns: Columns) -> Batch:
    """Rows with all their conditions."""
    tensors = {segment.name: torch.from_numpy(in_sequence(segment, columns[segment.name]))
               for segment in layout.segments}
    codes = tensors.pop(layout.target.name)
    return Batch(tensors, codes)


def in_sequence(segment: Segment, stored: np.ndarray) -> np.ndarray:
    """A segment's codes or labels ``(B, ...)`` in sequence, ``(B, n)`` int64; V for no label."""
    if segment.name != LABEL:
        return segment.to_sequence(stored)
    labels = stored.astype(np.int64)
    return np.where(labels == NO_LABEL, segment.null, labels)[:, None]


def columns_of(table: pa.Table, specs: Sequence[CodeSpec], num_classes: int) -> Columns:
    """Codes and labels of a table of shard rows.

    Raises:
        ValueError: a code or label lies outside what spec and number of classes say.
    """
    columns = {LABEL: _labels(table, num_classes)}
    for spec in specs:
        columns[spec.modality] = codes_array(spec, table)
        spec.check_codes(columns[spec.modality])
    return columns


def joined(parts: Sequence[Columns]) -> Columns:
    """Rows one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _labels(table: pa.Table, num_classes: int) -> np.ndarray:
    labels = table.column("label").fill_null(NO_LABEL).to_numpy().astype(np.int32)
    given = labels[labels != NO_LABEL]
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), the number of classes, "
                         f"got {given.min()} to {given.max()}")
    return labels
