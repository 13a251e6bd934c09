"""The contract of a token corpus: what its codes mean, its Arrow schema, its manifest.

`docs/token_corpus.md` is the same as a specification in words. Everything here is plain data over
pyarrow; neither torch nor Beam is needed to read a corpus.

Letters: h and w the rows and columns of the code grid, D codes a cell, K codebook size.
"""
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer import configs
from tokenizer.code_spec import BUCKET as BUCKET
from tokenizer.code_spec import CROP_SETTINGS as CROP_SETTINGS
from tokenizer.code_spec import UNKNOWN as UNKNOWN
from tokenizer.code_spec import CodeSpec as CodeSpec
from tokenizer.usage import CodeUsage as CodeUsage
from tokenizer.usage import count_codes as count_codes

FORMAT = "img2tokens.tokens"
FORMAT_VERSION = 1
METADATA_KEY = b"img2tokens"
"""The name under which each Parquet file's metadata holds the `TokenSpec` as JSON."""

MAX_LISTED = (1 << 31) - 1
"""Codes that a column of lists of any length can hold: Arrow counts them in 32 bits."""


class SpecMismatch(ValueError):
    """Two specs that must be equal differ; the message names the field and both values."""


@contextmanager
def naming_file(name: str) -> Iterator[None]:
    """In the block, errors about the content of a file name it, and say where it may come from.

    Raises:
        ValueError: the content is damaged, or of a version that this program does not know.
    """
    try:
        yield
    except SpecMismatch as error:
        raise SpecMismatch(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be read ({error}): it is damaged, or written by another "
                         "version of img2tokens") from error


@dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """What a token corpus holds: one `CodeSpec` for each modality, in column order.

    Attributes:
        quality: names of further columns, float32, that say how good a row's codes are; see
            `tokenizer.quality`.
    """
    codes: tuple[CodeSpec, ...]
    format_version: int = FORMAT_VERSION
    quality: tuple[str, ...] = field(default=(), metadata=configs.LATER)

    def __post_init__(self) -> None:
        names = [spec.modality for spec in self.codes]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"a corpus holds each of its modalities once, got {names}")
        if len({len(spec.buckets) for spec in self.codes}) > 1:
            raise ValueError("all modalities have the same buckets, got " + ", ".join(
                f"{len(spec.buckets)} of {spec.modality}" for spec in self.codes))
        _require_version(self.format_version)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in column order."""
        return tuple(spec.modality for spec in self.codes)

    @property
    def buckets(self) -> tuple[str, ...]:
        """Names of the buckets, the same for all modalities; none where all rows have one grid."""
        return tuple(bucket.name for bucket in self.codes[0].buckets)

    @property
    def grids(self) -> "tuple[TokenSpec, ...]":
        """The same for each bucket by itself, or this one where there are none."""
        if not self.buckets:
            return (self,)
        return tuple(dataclasses.replace(self, codes=codes)
                     for codes in zip(*(spec.grids for spec in self.codes), strict=True))

    def __getitem__(self, modality: str) -> CodeSpec:
        for spec in self.codes:
            if spec.modality == modality:
                return spec
        raise ValueError(f"the corpus holds no {modality} codes, only {', '.join(self.modalities)}")

    def to_json(self) -> str:
        """Canonical JSON: equal specs, equal text."""
        return configs.canonical_json(configs.to_dict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "TokenSpec":
        """The spec that `to_json` wrote."""
        data = json.loads(text)
        _require_version_of(data)
        return configs.from_dict(cls, data)

    @classmethod
    def from_arrow(cls, schema: pa.Schema, name: str) -> "TokenSpec":
        """The spec in a shard's metadata; ``name`` is the shard's, for the message."""
        if METADATA_KEY not in (schema.metadata or {}):
            raise ValueError(f"{name} holds no {METADATA_KEY.decode()} metadata: not a token shard")
        with naming_file(name):
            return cls.from_json(schema.metadata[METADATA_KEY])

    def require_equal(self, other: "TokenSpec", name: str) -> None:
        """Refuse another spec.

        Args:
            other: the spec found at ``name``.
        Raises:
            SpecMismatch: names the first field that differs, with both values.
        """
        ours, theirs = (configs.flatten(configs.to_dict(spec)) for spec in (self, other))
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                raise SpecMismatch(f"{name}: {key} is {theirs.get(key)!r}, "
                                   f"expected {ours.get(key)!r}")

    def arrow_schema(self) -> pa.Schema:
        """The schema of every shard, with this spec in its metadata."""
        columns = [pa.field("key", pa.string(), nullable=False),
                   pa.field("source", pa.string(), nullable=False)]
        for spec in self.codes:
            columns.append(pa.field(spec.column, spec.column_type, nullable=False))
        if self.buckets:
            columns.append(pa.field(BUCKET, pa.string(), nullable=False))
            columns += [pa.field(name, pa.int32(), nullable=False)
                        for spec in self.codes for name in spec.grid_columns]
        columns += [pa.field(name, pa.int32(), nullable=False) for name in GEOMETRY]
        columns += [pa.field("flipped", pa.bool_(), nullable=False),
                    pa.field("label", pa.int32()),
                    pa.field("class_name", pa.string()),
                    pa.field("caption", pa.string()),
                    *(pa.field(name, pa.float32()) for name in self.quality)]
        return pa.schema(columns, metadata={METADATA_KEY: self.to_json()})


GEOMETRY = ("height", "width", "crop_index", "left", "top", "crop_width", "crop_height")
"""Integer columns: the original image's size, and the crop within it, in pixels of the original."""

DEAD_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False)
                         for name in ("key", "source", "stage", "error", "message")])
"""Schema of the dead letters: what failed, where in the work, the error's class and its words."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One file of a corpus: its path below the corpus, rows, size in bytes and SHA-256."""
    name: str
    rows: int
    bytes: int
    sha256: str


LATER_FIELDS = frozenset({"bucket_counts", "deltas", "superseded"})
"""Fields of `Manifest` that the first corpora did not have; where empty they are left out."""


@dataclass(frozen=True, kw_only=True)
class DeltaEntry:
    """What was added to a corpus after its job; see `tokenizer.deltas`.

    Attributes:
        kind: ``extend`` for new inputs, ``retry`` for dead letters tried again.
        fingerprint: of its plan.
        num_inputs: inputs of its plan; ``num_rows`` and ``num_shards`` what became of them.
    """
    kind: str
    fingerprint: str
    num_inputs: int
    num_rows: int
    num_shards: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Completes a corpus: what it holds and how to check it.

    Attributes:
        fingerprint: hash over everything that decides the content: inputs, tokenizers, settings; of
            the last delta where there are any, which depends on those before.
        num_inputs: inputs planned; each is either the origin of rows or a dead letter.
        num_crops: rows of each input that did not fail.
        dead_letters: how many inputs failed, by error class.
        classes: class names; a row's label is an index into them. Empty where rows have no class.
        usage: per modality, how much of its codebook the corpus uses.
        class_counts: rows of each class that occurs, by its name, or label where it has none.
        bucket_counts: rows of each bucket that occurs, by its name.
        dead_files: the files of dead letters, one for each shard in which an input failed.
        deltas: what was added since; their shards are the last ones, in this order.
        superseded: files of dead letters whose inputs a delta has tried again.
    """
    spec: TokenSpec
    fingerprint: str
    num_inputs: int
    num_rows: int
    shards: tuple[ShardEntry, ...]
    dead_letters: dict[str, int]
    classes: tuple[str, ...]
    usage: dict[str, CodeUsage]
    class_counts: dict[str, int] = field(default_factory=dict)
    bucket_counts: dict[str, int] = field(default_factory=dict)
    dead_files: tuple[ShardEntry, ...] = ()
    num_crops: int = 1
    deltas: tuple[DeltaEntry, ...] = ()
    superseded: tuple[ShardEntry, ...] = ()

    def __post_init__(self) -> None:
        for entry in (*self.shards, *self.dead_files, *self.superseded):
            if entry.name.startswith("/") or ":" in entry.name or ".." in entry.name.split("/"):
                raise ValueError(f"files of a corpus lie in its folder, got {entry.name!r}")

    @property
    def num_dead_letters(self) -> int:
        """Inputs that failed."""
        return sum(self.dead_letters.values())

    def to_json(self) -> str:
        """Readable JSON, the same text for the same corpus."""
        data = {"format": FORMAT, **configs.to_dict(self)}
        data = {name: value for name, value in data.items() if value or name not in LATER_FIELDS}
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "Manifest":
        """The manifest that `to_json` wrote; ``name`` is its path, for the message."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not JSON ({error}): the file is damaged") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f"{name} is not a manifest of a token corpus (no format {FORMAT})")
        with naming_file(name):
            _require_version_of(data.get("spec"))
            return configs.from_dict(cls, data)


def _require_version_of(spec: Any) -> None:
    """Refuse a spec of another version before what this one does not know in it; JSON values."""
    if isinstance(spec, dict):
        _require_version(spec.get("format_version", FORMAT_VERSION))


def _require_version(found: Any) -> None:
    if found != FORMAT_VERSION:
        raise SpecMismatch(f"format_version is {found}; this program reads {FORMAT_VERSION}: use "
                           "the version of img2tokens that wrote it")


def codes_column(spec: CodeSpec, codes: np.ndarray | Sequence[np.ndarray]) -> pa.Array:
    """Codes as a column of shards.

    Args:
        codes: ``(N[, D], h, w)``; where there are buckets, ``([D,] h, w)`` of each of N rows.
    Raises:
        ValueError: codes of another grid or outside the codebook.
    """
    kind = spec.column_type
    if spec.buckets:
        grids = {part.code_shape: part for part in spec.grids}
        sizes = [row.size for row in codes]
        if sum(sizes) > MAX_LISTED:
            raise ValueError(f"{sum(sizes)} {spec.modality} codes are more than one shard with "
                             f"buckets holds, {MAX_LISTED}: make shards of fewer images "
                             "(--shard-size)")
        for row in codes:
            if row.shape not in grids:
                raise ValueError(f"{spec.modality} codes of a row must be of one of the shapes "
                                 f"{spec.shapes}, got {row.shape}")
            grids[row.shape].check_codes(row)
        flat = np.concatenate([np.zeros(0, spec.dtype), *(row.reshape(-1) for row in codes)])
        ends = np.cumsum([0, *sizes], dtype=np.int32)
        return pa.ListArray.from_arrays(ends, pa.array(flat.astype(spec.dtype)), type=kind)
    codes = np.asarray(codes)
    spec.check_codes(codes)
    flat = np.ascontiguousarray(codes, dtype=spec.dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)


def codes_array(spec: CodeSpec, table: pa.Table) -> np.ndarray:
    """The codes of one modality in a table of shard rows: ``(N[, D], h, w)``, uint16 or 32.

    Raises:
        ValueError: rows have several grids: see `tokenizer.grids`.
    """
    if spec.buckets:
        raise ValueError(f"the {spec.modality} codes have several grids, {spec.shapes}, and one "
                         "is needed: take one bucket by --filter, or encode with --size")
    column = table.column(spec.column)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # a copy
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(spec.dtype, copy=False).reshape(-1, *spec.code_shape)


def rows_table(spec: TokenSpec, codes: Mapping[str, np.ndarray | Sequence[np.ndarray]],
               columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Rows of one shard.

    Args:
        codes: per modality, as for `codes_column`.
        columns: the other columns by name, N values each; ``label``, ``class_name`` and
            ``caption`` may be left out. NaN is null in those of quality.
    """
    schema = spec.arrow_schema()
    num_rows = len(columns["key"])
    arrays = []
    by_column = {item.column: item for item in spec.codes}
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name in by_column:
            arrays.append(codes_column(by_column[name], codes[by_column[name].modality]))
        elif name in ("label", "class_name", "caption"):
            arrays.append(pa.array(columns.get(name, [None] * num_rows), type=kind))
        else:
            arrays.append(pa.array(columns[name], type=kind, from_pandas=name in spec.quality))
    return pa.Table.from_arrays(arrays, schema=schema)
