"""Masks: which cells of a given image are drawn anew.

A hole is bool over the cells of the code grid, true where codes are drawn. It is asked for in
pixels, by boxes or a picture; a cell is drawn if any of its pixels lies in the hole.

Letters: h and w rows and columns of the code grid, D codes a cell, H and W of a picture in pixels.
"""
from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def boxes_hole(boxes: Sequence[Box], image_size: tuple[int, int],
               grid: tuple[int, int]) -> np.ndarray:
    """Cells ``(h, w)`` bool that any of the boxes touches.

    Raises:
        ValueError: a box is empty or leaves the picture.
    """
    inside = np.zeros(image_size, bool)
    for top, left, height, width in boxes:
        if min(height, width) < 1 or min(top, left) < 0 or (
                top + height > image_size[0] or left + width > image_size[1]):
            raise ValueError(f"a hole lies within the picture of {image_size[0]} x "
                             f"{image_size[1]} pixels and is not empty, got top {top}, left "
                             f"{left}, height {height} and width {width}")
        inside[top:top + height, left:left + width] = True
    return picture_hole(inside, grid)


def picture_hole(picture: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cells ``(h, w)`` bool in which a picture ``(H, W)`` is not zero anywhere.

    Args:
        picture: of any size at least that of the grid; it is stretched over it.
    Raises:
        ValueError: it is smaller than the grid.
    """
    if picture.shape[0] < grid[0] or picture.shape[1] < grid[1]:
        raise ValueError(f"a mask needs a pixel for each of {grid[0]} x {grid[1]} cells, got "
                         f"{picture.shape[0]} x {picture.shape[1]} pixels")
    marked = picture != 0
    for axis, count in enumerate(grid):
        starts = np.arange(count) * marked.shape[axis] // count
        marked = np.logical_or.reduceat(marked, starts, axis=axis)
    return marked


def rows_hole(keep: float, grid: tuple[int, int]) -> np.ndarray:
    """Cells ``(h, w)`` bool of all rows but the first: at least one is kept, and not all.

    Args:
        keep: share of the rows that is kept, in (0, 1).
    Raises:
        ValueError: it is none, or there is one row alone.
    """
    if not 0 < keep < 1:
        raise ValueError(f"keep is the share of rows to keep and must lie in (0, 1), got {keep}")
    if grid[0] < 2:
        raise ValueError(f"a grid of {grid[0]} x {grid[1]} cells has one row, of which none can be "
                         "kept while others are drawn: give a hole or a mask")
    kept = min(max(1, round(keep * grid[0])), grid[0] - 1)
    return np.arange(grid[0])[:, None].repeat(grid[1], 1) >= kept


def codes_hole(hole: np.ndarray, depth: int) -> np.ndarray:
    """A hole in cells ``(h, w)`` as one of codes in the order of the sequence, ``(h * w * D,)``.

    Raises:
        ValueError: nothing would be drawn.
    """
    if not hole.any():
        raise ValueError("the hole is empty: every cell is given and nothing is left to draw")
    return hole.reshape(-1).repeat(depth)


def paint_hole(pictures: np.ndarray, hole: np.ndarray, grey: int = 128) -> np.ndarray:
    """Pictures ``(N, H, W, 3)`` uint8 with the cells of a hole ``(h, w)`` in grey."""
    rows, columns = (np.arange(size) * count // size
                     for size, count in zip(pictures.shape[1:3], hole.shape, strict=True))
    return np.where(hole[rows][:, columns][None, :, :, None], np.uint8(grey), pictures)
