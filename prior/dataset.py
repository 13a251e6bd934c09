"""Rows of a token corpus, and batches of them as a prior reads them.

`CodeRows` holds codes at their stored width, 2 or 4 bytes a code, in memory or mapped from a file.
In which order training goes through them is the matter of `prior.loading`.

Letters: N rows, B rows of a batch, n codes of a segment, D codes a cell, V its vocabulary.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from prior.coordinates import CropColumn
from prior.sequence import COORDINATES, LABEL, Segment, SequenceLayout
from tokenizer.schema import CodeSpec, TokenSpec, codes_array
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

NO_LABEL = -1
"""Label of a row without one."""

Columns = dict[str, np.ndarray]
"""Of some rows: per modality the codes as stored, ``(B[, D], h, w)``, and the labels, ``(B,)``;
for coordinates the records of the crops, ``(B, 7)``."""


class RowColumn(Protocol):
    """Something that is read of each row, beside its label.

    Attributes:
        name: a modality, or ``coordinates``.
        columns: of shards, from which it is read.
        shape: of one row's.
        dtype: as it is read.
    """
    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, table: pa.Table) -> np.ndarray:
        """That of a table of shard rows, ``(N, *shape)``.

        Raises:
            ValueError: it is not what it must be.
        """


@dataclass(frozen=True)
class CodeColumn:
    """The codes of a modality, as stored; see `RowColumn`."""
    spec: CodeSpec

    @property
    def name(self) -> str:
        return self.spec.modality

    @property
    def columns(self) -> tuple[str, ...]:
        return self.spec.columns

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.code_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype

    def read(self, table: pa.Table) -> np.ndarray:
        codes = codes_array(self.spec, table)
        self.spec.check_codes(codes)
        return codes


def row_columns(spec: TokenSpec, names: Sequence[str]) -> list[RowColumn]:
    """What is read of the rows of a corpus: modalities, or ``coordinates``.

    Raises:
        ValueError: a modality is not in the corpus.
    """
    return [CropColumn() if name == COORDINATES else CodeColumn(spec[name]) for name in names]


def row_bytes(columns: Sequence[RowColumn]) -> int:
    """Bytes of what is read of one row."""
    return sum(int(np.prod(column.shape)) * column.dtype.itemsize for column in columns)


@dataclass(frozen=True)
class CodeRows:
    """Rows of a corpus in memory.

    Attributes:
        keys: N keys; crops of one image share theirs.
        codes: per modality as stored, ``(N[, D], h, w)``, uint16 or uint32; of coordinates the
            records of crops, ``(N, 7)`` int32.
        labels: ``(N,)`` int32, `NO_LABEL` where a row has none.
        classes: class names; labels are indices into them.
    """
    keys: list[str]
    codes: dict[str, np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def load(cls, corpus: TokenCorpus, modalities: Sequence[str]) -> "CodeRows":
        """The rows of a corpus with the codes of some modalities, or of ``coordinates``.

        Raises:
            ValueError: a modality is not in the corpus, a shard is damaged, or a code or label lies
                outside what the manifest says.
        """
        read = row_columns(corpus.spec, modalities)
        columns = ["key", "label", *(name for column in read for name in column.columns)]
        keys: list[str] = []
        parts: list[Columns] = []
        for shard, entry in enumerate(corpus.manifest.shards):
            table = corpus.read_shard(shard, columns)
            try:
                parts.append(columns_of(table, read, len(corpus.manifest.classes)))
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
        held_out = set(split.divide(self.keys)[1])
        return np.array([key in held_out for key in self.keys], bool)

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


def columns_of(table: pa.Table, read: Sequence[RowColumn], num_classes: int) -> Columns:
    """What is read of a table of shard rows, and their labels.

    Raises:
        ValueError: a code or label lies outside what spec and number of classes say.
    """
    return {LABEL: _labels(table, num_classes),
            **{column.name: column.read(table) for column in read}}


def joined(parts: Sequence[Columns]) -> Columns:
    """Rows one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def spread(num_rows: int, limit: int) -> np.ndarray:
    """At most ``limit`` of N rows, int64, evenly spread: a corpus is in order of its classes."""
    count = min(limit, num_rows)
    return np.arange(count) * num_rows // max(1, count)


def require_codes(expected: TokenSpec, found: TokenSpec, names: Iterable[str], place: str) -> None:
    """Refuse codes that mean something else than others; of which crops they are may differ.

    Args:
        names: modalities that are compared.
        place: where ``found`` is from, for messages.
    Raises:
        SpecMismatch, ValueError: names the modality and what differs, or that it lacks.
    """
    for name in names:
        if name not in found.modalities:
            raise ValueError(f"{place} holds no {name} codes, which are needed; it holds "
                             f"{', '.join(found.modalities)}")
        whole = [TokenSpec(codes=(spec[name].cropped({}),)) for spec in (expected, found)]
        whole[0].require_equal(whole[1], place)


def _labels(table: pa.Table, num_classes: int) -> np.ndarray:
    column = table.column("label")
    if column.null_count == len(column):  # as in a corpus without classes; this is quicker
        return np.full(len(column), NO_LABEL, np.int32)
    labels = column.fill_null(NO_LABEL).to_numpy().astype(np.int32)
    given = labels[labels != NO_LABEL]
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), the number of classes, "
                         f"got {given.min()} to {given.max()}")
    return labels
