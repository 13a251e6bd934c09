"""What the codes of one modality mean: grid, codebook, tokenizer, and how bytes became pixels.

Part of the contract of a token corpus, `tokenizer.schema`, through which others import it.

Letters: h and w the rows and columns of the code grid, D codes a cell, K codebook size.
"""
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer import configs
from tokenizer.buckets import Bucket

UNKNOWN = "unknown"
"""The tokenizer, crop, resampling or precision of codes from another program that does not say."""

CROP_SETTINGS = ("crop", "flips", "crop_seed")
"""Settings of `CodeSpec.preprocessing` that say which crops are rows, not what codes mean."""

BUCKET = "bucket"
"""Column of a corpus with buckets: the name of the row's own."""


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
