"""The contract of a token corpus: what its codes mean, its Arrow schema, its manifest.

`docs/token_corpus.md` is the same as a specification in words. Everything here is plain data over
pyarrow; neither torch nor Beam is needed to read a corpus.

Letters: h and w the rows and columns of the code grid, D codes a cell, K codebook size.
"""
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer import configs

FORMAT = "img2tokens.tokens"
FORMAT_VERSION = 1
METADATA_KEY = b"img2tokens"
"""The name under which each Parquet file's metadata holds the `TokenSpec` as JSON."""

UNKNOWN = "unknown"
"""The tokenizer, crop, resampling or precision of codes from another program that does not say."""

CROP_SETTINGS = ("crop", "flips", "crop_seed")
"""Settings of `CodeSpec.preprocessing` that say which crops are rows, not what codes mean."""


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
    """
    modality: str
    grid: tuple[int, int]
    codebook_size: int
    image_size: tuple[int, int]
    tokenizer: str
    preprocessing: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    depth: int = 1

    def __post_init__(self) -> None:
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
        if self.format_version != FORMAT_VERSION:
            raise SpecMismatch(f"format_version is {self.format_version}; this program reads "
                               f"{FORMAT_VERSION}: use the version of img2tokens that wrote it")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities in column order."""
        return tuple(spec.modality for spec in self.codes)

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
        ours, theirs = flatten(configs.to_dict(self)), flatten(configs.to_dict(other))
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                raise SpecMismatch(f"{name}: {key} is {theirs.get(key)!r}, "
                                   f"expected {ours.get(key)!r}")

    def arrow_schema(self) -> pa.Schema:
        """The schema of every shard, with this spec in its metadata."""
        columns = [pa.field("key", pa.string(), nullable=False),
                   pa.field("source", pa.string(), nullable=False)]
        for spec in self.codes:
            element = pa.field("element", pa.from_numpy_dtype(spec.dtype), nullable=False)
            columns.append(pa.field(spec.column, pa.list_(element, spec.num_codes), nullable=False))
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
class CodeUsage:
    """How much of a codebook some codes use; with several codes a cell, the least of its codebooks.

    A codebook that has collapsed is thus seen however well the others are used.

    Attributes:
        used: number of entries that occur at least once.
        perplexity: 2 to the entropy in bits of the codes' distribution; K when uniform.
        used_by_depth: ``used`` of each of the D codebooks; empty for one code a cell.
    """
    used: int
    perplexity: float
    used_by_depth: tuple[int, ...] = ()

    @classmethod
    def of(cls, counts: np.ndarray) -> "CodeUsage":
        """Usage from how often each entry occurs: integer ``(D, K)``, or ``(K,)``."""
        counts = np.atleast_2d(counts)
        used = tuple(int(number) for number in (counts > 0).sum(1))
        return cls(used=min(used), perplexity=min(map(_perplexity, counts)),
                   used_by_depth=used if len(used) > 1 else ())

    @property
    def by_depth(self) -> str:
        """``; by depth 512, 37``, or nothing for one code a cell."""
        return f"; by depth {', '.join(map(str, self.used_by_depth))}" if self.used_by_depth else ""


def count_codes(codes: np.ndarray, codebook_size: int, depth: int = 1) -> np.ndarray:
    """How often each code occurs, int64 ``(D, K)``.

    Args:
        codes: ``(..., D, h, w)``, or any shape for one code a cell; integers in ``[0, K)``.
    """
    by_depth = codes[None] if depth == 1 else np.moveaxis(codes, -3, 0)
    return np.stack([np.bincount(part.reshape(-1), minlength=codebook_size) for part in by_depth])


def _perplexity(counts: np.ndarray) -> float:
    """2 to the entropy in bits of a distribution given as counts ``(K,)``; 0 without any."""
    total = int(counts.sum())
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return round(math.exp2(-float((shares * np.log2(shares)).sum())), 6)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One file of a corpus: its path below the corpus, rows, size in bytes and SHA-256."""
    name: str
    rows: int
    bytes: int
    sha256: str


LATER_FIELDS = frozenset({"deltas", "superseded"})
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


def codes_column(spec: CodeSpec, codes: np.ndarray) -> pa.Array:
    """Codes ``(N[, D], h, w)`` as a column of shards.

    Raises:
        ValueError: codes of another grid or outside the codebook.
    """
    spec.check_codes(codes)
    flat = pa.array(np.ascontiguousarray(codes, dtype=spec.dtype).reshape(-1))
    element = pa.field("element", flat.type, nullable=False)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(element, spec.num_codes))


def codes_array(spec: CodeSpec, table: pa.Table) -> np.ndarray:
    """The codes of one modality in a table of shard rows: ``(N[, D], h, w)``, uint16 or 32."""
    column = table.column(spec.column).combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(spec.dtype, copy=False).reshape(-1, *spec.code_shape)


def rows_table(spec: TokenSpec, codes: Mapping[str, np.ndarray],
               columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Rows of one shard.

    Args:
        codes: per modality ``(N[, D], h, w)``.
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


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists of dicts by dotted path; modalities name their specs."""
    if isinstance(value, dict):
        parts = {f"{prefix}.{key}" if prefix else key: item for key, item in value.items()}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = {f"{prefix}.{item.get('modality', index)}": item
                 for index, item in enumerate(value)}
    else:
        return {prefix: value}
    return {key: leaf for path, item in parts.items() for key, leaf in flatten(item, path).items()}
