"""The contract of a token corpus: what its codes mean, its Arrow schema, its manifest.

`docs/token_corpus.md` is the same as a specification in words. Everything here is plain data over
pyarrow; neither torch nor Beam is needed to read a corpus.

Letters: h and w the rows and columns of the code grid, D codes a cell, K codebook size.
"""
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer import configs
from tokenizer.buckets import Bucket
from tokenizer.usage import CodeUsage as CodeUsage
from tokenizer.usage import count_codes as count_codes

FORMAT = "img2tokens.tokens"
FORMAT_VERSION = 1
METADATA_KEY = b"img2tokens"
"""The name under which each Parquet file's metadata holds the `TokenSpec` as JSON."""

UNKNOWN = "unknown"
"""The tokenizer, crop, resampling or precision of codes from another program that does not say."""

CROP_SETTINGS = ("crop", "flips", "crop_seed")
"""Settings of `CodeSpec.preprocessing` that say which crops are rows, not what codes mean."""


BUCKET = "bucket"
"""Column of a corpus with buckets: the name of the row's own."""


class SpecMismatch(ValueError):
    """Two specs that must be equal differ; the message names the field and both values."""


@dataclass(frozen=True, kw_only=True)
class CodeSpec:
    """What the codes of one modality mean: enough to decode them or to refuse to.

    Attributes:
        modality: a name of `tokenizer.corpus.modalities.MODALITIES`.
        grid: rows and columns of the code grid; codes are stored in raster order.
        depth: codes a cell, D; all first codes are stored before all second ones, and so on.
        codebook_size: K; every code lies in ``[0, K)``.
        image_size: height and width in pixels of the crop that the encoder saw.
        tokenizer: fingerprint of the tokenizer's weights and config, ``sha256:...``, or `UNKNOWN`.
        preprocessing: how bytes became pixels, as JSON values (resampling, range, classes, ...).
        precision: arithmetic of the encoder, ``float32`` unless asked otherwise.
        buckets: where rows have different grids, these; ``grid`` and ``image_size`` are then those
            of the first one.
    """
    modality: str
    grid: tuple[int, int]
    codebook_size: int
    image_size: tuple[int, int]
    tokenizer: str
    preprocessing: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    depth: int = 1
    buckets: tuple[Bucket, ...] = field(default=(), metadata=configs.LATER)

    def __post_init__(self) -> None:
        own = Bucket(image_size=self.image_size, grid=self.grid)
        if self.buckets and self.buckets[0] != own:
            raise ValueError(f"the first bucket must be {own}, got {self.buckets[0]}")
        if min(self.grid) < 1:
            raise ValueError(f"grid must be at least 1 x 1, got {self.grid}")
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if not 1 <= self.codebook_size <= 1 << 32:
            raise ValueError(f"codebook_size must be in [1, 2**32], got {self.codebook_size}")

    @property
    def num_codes(self) -> int:
        """Codes per crop, D * h * w."""
        return self.depth * self.grid[0] * self.grid[1]

    @property
    def code_shape(self) -> tuple[int, ...]:
        """``(h, w)``, or ``(D, h, w)`` for more than one code a cell: the codes of one crop."""
        return self.grid if self.depth == 1 else (self.depth, *self.grid)

    @property
    def column(self) -> str:
        """Name of the column that holds these codes."""
        return f"{self.modality}_codes"

    @property
    def column_type(self) -> pa.DataType:
        """Arrow's type of that column: lists of one length, or with buckets of any."""
        element = pa.field("element", pa.from_numpy_dtype(self.dtype), nullable=False)
        return pa.list_(element) if self.buckets else pa.list_(element, self.num_codes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns from which its codes can be read: `tokenizer.grids`."""
        return (self.column, BUCKET) if self.buckets else (self.column,)

    @property
    def grid_columns(self) -> tuple[str, str]:
        """Names of the columns of rows and columns of a row's grid, where there are buckets."""
        return f"{self.modality}_grid_height", f"{self.modality}_grid_width"

    @property
    def grids(self) -> "tuple[CodeSpec, ...]":
        """The same for each bucket by itself, or this one where there are none."""
        return tuple(dataclasses.replace(self, buckets=(), grid=bucket.grid,
                                         image_size=bucket.image_size)
                     for bucket in self.buckets) or (self,)

    @property
    def shapes(self) -> str:
        """``16 x 16``, or the shapes of all buckets' codes: ``8 x 16, 16 x 8``."""
        return ", ".join(" x ".join(map(str, part.code_shape)) for part in self.grids)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest unsigned integer type of the format that holds every code: uint16 or uint32."""
        return np.dtype(np.uint16 if self.codebook_size <= 1 << 16 else np.uint32)

    def size_on(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the pictures of which this tokenizer makes codes on a grid."""
        return (grid[0] * self.image_size[0] // self.grid[0],
                grid[1] * self.image_size[1] // self.grid[1])

    def cropped(self, settings: Mapping[str, Any]) -> "CodeSpec":
        """The same of other crops: ``settings`` in place of its own `CROP_SETTINGS`."""
        rest = {name: value for name, value in self.preprocessing.items()
                if name not in CROP_SETTINGS}
        return dataclasses.replace(self, preprocessing={**rest, **settings})

    def check_codes(self, codes: np.ndarray) -> None:
        """Refuse codes of another grid or outside the codebook.

        Args:
            codes: ``(..., *code_shape)``, any integer type.
        Raises:
            ValueError: the grid or a code is outside this spec; the message shows it.
        """
        shape = self.code_shape
        if codes.shape[-len(shape):] != shape or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(
                f"{self.modality} codes must be integers of shape (..., "
                f"{', '.join(map(str, shape))}), got {codes.dtype} of shape {codes.shape}")
        if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
            raise ValueError(f"{self.modality} codes must lie in [0, {self.codebook_size}), "
                             f"got {int(codes.min())} to {int(codes.max())}")


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
        if self.format_version != FORMAT_VERSION:
            raise SpecMismatch(f"format_version is {self.format_version}; this program reads "
                               f"{FORMAT_VERSION}: use the version of img2tokens that wrote it")

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
        return configs.from_dict(cls, json.loads(text))

    @classmethod
    def from_arrow(cls, schema: pa.Schema, name: str) -> "TokenSpec":
        """The spec in a shard's metadata; ``name`` is the shard's, for the message."""
        if METADATA_KEY not in (schema.metadata or {}):
            raise ValueError(f"{name} holds no {METADATA_KEY.decode()} metadata: not a token shard")
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
        except ValueError as error:
            raise ValueError(f"{name} is not JSON ({error}): the file is damaged") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f"{name} is not a manifest of a token corpus (no format {FORMAT})")
        return configs.from_dict(cls, data)


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
        for row in codes:
            if row.shape not in grids:
                raise ValueError(f"{spec.modality} codes of a row must be of one of the shapes "
                                 f"{spec.shapes}, got {row.shape}")
            grids[row.shape].check_codes(row)
        flat = np.concatenate([np.zeros(0, spec.dtype), *(row.reshape(-1) for row in codes)])
        ends = np.cumsum([0, *(row.size for row in codes)], dtype=np.int32)
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
    column = table.column(spec.column).combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
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
