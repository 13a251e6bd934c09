"""Coordinates: where in its whole image a crop lies, as a condition of a prior.

A prior that is told can draw each part of an image as such parts look, the sky above and the ground
below, and images larger than its own, as every window gets the coordinates of its place. Nothing is
stored for this: the codes follow from the crop that each row of a corpus records.

A pixel in row r and column c of an image of H x W pixels has the coordinate (r W + c) / (H W). A
code is K times the mean over the pixels of its cell, rounded (Esser et al. 2021, arXiv:2012.09841,
as their program computes it). A mirrored crop is one of the mirrored image.

Letters: N rows, n codes of a row on a grid of h rows and w columns, K values they can have, H and W
pixels of the whole image, at the scale of the crop that the encoder saw.
"""
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from prior.sequence import COORDINATES, Segment

LEVELS = 1024
"""K, where nothing else is said."""

RECORD = ("height", "width", "top", "left", "crop_height", "crop_width", "flipped")
"""Columns of a row that say where its crop lies, in pixels of the original image."""


@dataclass(frozen=True, kw_only=True)
class CoordinateSegment(Segment):
    """The coordinates of a crop; K is its vocabulary.

    Attributes:
        image_size: height and width in pixels of the crop that the encoder saw.
    """
    image_size: tuple[int, int]

    def to_sequence(self, codes: np.ndarray) -> np.ndarray:
        """Records of crops, ``(N, 7)`` integers in the order of `RECORD`, as ``(N, n)`` int64."""
        height, width, top, left, crop_height, crop_width, flipped = codes.astype(np.float64).T
        left = np.where(flipped != 0, width - left - crop_width, left)
        rows = (top[:, None] + crop_height[:, None] * self._centres(0)) / height[:, None]
        columns = (left[:, None] + crop_width[:, None] * self._centres(1)) / width[:, None]
        line = crop_height / (self.image_size[0] * height)  # 1 / H
        shares = rows[:, :, None] + columns[:, None, :] * line[:, None, None]
        levels = np.rint(shares * self.vocabulary).astype(np.int64)
        return levels.clip(0, self.vocabulary - 1).reshape(len(codes), self.length)

    def _centres(self, axis: int) -> np.ndarray:
        """Mean row or column of the pixels of each cell, as a share of the crop, float64."""
        count, pixels = self.grid[axis], self.image_size[axis]
        return (np.arange(count) + 0.5) / count - 0.5 / pixels


@dataclass(frozen=True)
class CropColumn:
    """The records of crops as rows of a corpus hold them; see `prior.dataset.RowColumn`."""
    name: ClassVar[str] = COORDINATES
    columns: ClassVar[tuple[str, ...]] = RECORD
    shape: ClassVar[tuple[int, ...]] = (len(RECORD),)
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.int32)

    def read(self, table: pa.Table) -> np.ndarray:
        """Records ``(N, 7)`` int32 of a table of shard rows.

        Raises:
            ValueError: a crop is empty, or lies outside its image.
        """
        records = np.stack([table.column(name).to_numpy().astype(np.int32) for name in RECORD], 1)
        height, width, top, left, crop_height, crop_width, _ = records.astype(np.int64).T
        is_crop = ((top >= 0) & (left >= 0) & (crop_height > 0) & (crop_width > 0)
                   & (top + crop_height <= height) & (left + crop_width <= width))
        if not is_crop.all():
            found = dict(zip(RECORD, records[is_crop.argmin()].tolist(), strict=True))
            said = ", ".join(f"{name} {value}" for name, value in found.items())
            raise ValueError(f"a row says of its crop: {said}; this is no part of an image, so the "
                             "row has no coordinates: leave this condition out")
        return records


def window_sides(records: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """Sides of windows as shares of the largest box of their shape in the whole image.

    Args:
        records: of the crops that are drawn through windows, ``(N, 7)`` as in `RECORD`.
        shares: a window's height and width as shares of the crop's.
    Returns:
        ``(N,)`` float64.
    """
    height, width, _, _, crop_height, crop_width, _ = records.astype(np.float64).T
    return np.maximum(shares[0] * crop_height / height, shares[1] * crop_width / width)


def whole_image(size: tuple[int, int]) -> np.ndarray:
    """The record ``(7,)`` int32 of an image of this height and width that is not cropped."""
    return np.array([*size, 0, 0, *size, 0], np.int32)
