"""Pictures for people: tiles of images, colours for label and depth maps, codes as a grid.

All take and return uint8 RGB arrays ``(..., H, W, 3)``; nothing here decides what is stored.
"""
import colorsys
import io
from collections.abc import Mapping
from functools import cache

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tokenizer import storage

GOLDEN_RATIO = 0.618033988749895
DEPTH_STOPS = ((13, 8, 60), (90, 30, 125), (190, 55, 85), (245, 130, 45), (250, 240, 160))
"""Colours from depth 0 to 65535: dark blue over red to pale yellow, rising in lightness."""


def tile(images: np.ndarray, columns: int, padding: int = 2, colour: int = 255) -> np.ndarray:
    """Images side by side, row by row.

    Args:
        images: ``(N, H, W, 3)`` uint8, N at least 1.
        columns: images a row.
        padding: pixels between and around images, of grey level ``colour``.
    Returns:
        ``(rows * (H + padding) + padding, columns * (W + padding) + padding, 3)`` uint8.
    """
    num_images, height, width, _ = images.shape
    rows = -(-num_images // columns)
    sheet = np.full((rows * (height + padding) + padding, columns * (width + padding) + padding, 3),
                    colour, np.uint8)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        sheet[top:top + height, left:left + width] = image
    return sheet


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """An image ``(..., H, W, 3)`` with each pixel repeated ``factor`` times along both sides."""
    return image.repeat(factor, axis=-3).repeat(factor, axis=-2)


def save_png(url: str, image: np.ndarray) -> None:
    """Write ``(H, W, 3)`` uint8 as PNG to a path or fsspec URL, atomically."""
    storage.write_bytes(url, png_bytes(image))


def png_bytes(image: np.ndarray, texts: Mapping[str, str] | None = None) -> bytes:
    """``(H, W, 3)`` or ``(H, W)`` uint8 as one PNG file.

    Args:
        texts: by keyword, kept in the file's metadata.
    """
    buffer, info = io.BytesIO(), PngInfo()
    for keyword, text in (texts or {}).items():
        info.add_itxt(keyword, text)
    Image.fromarray(image).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """Class ids ``(..., H, W)``, any integers, as colours: neighbouring ids look different."""
    return label_colours()[labels.astype(np.int64) % len(label_colours())]


def colour_depth(depth: np.ndarray) -> np.ndarray:
    """Depth ``(..., H, W)`` uint16 as colours, `DEPTH_STOPS` from 0 to 65535."""
    position = np.linspace(0, 65535, len(DEPTH_STOPS))
    channels = [np.interp(depth, position, [stop[channel] for stop in DEPTH_STOPS])
                for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def colour_codes(codes: np.ndarray, codebook_size: int, size: tuple[int, int]) -> np.ndarray:
    """Codes ``(..., h, w)`` as a grid of coloured cells ``(..., height, width, 3)``.

    The colour shows the index alone: equal codes look equal, near indices need not look alike.

    Args:
        size: height and width of the picture, multiples of h and w.
    """
    hues = codes.astype(np.float64) * GOLDEN_RATIO % 1.0
    values = 0.45 + 0.5 * ((codes.astype(np.int64) * 7919) % codebook_size) / codebook_size
    table = (hues * 6)[..., None] + np.array([5.0, 3.0, 1.0])
    ramp = np.clip(np.minimum(table % 6, 4 - table % 6), 0, 1)
    cells = (values[..., None] * (1 - 0.65 * ramp) * 255).round().astype(np.uint8)
    rows, columns = size[0] // codes.shape[-2], size[1] // codes.shape[-1]
    return cells.repeat(rows, axis=-3).repeat(columns, axis=-2)


@cache
def label_colours() -> np.ndarray:
    """256 colours for class ids, ``(256, 3)`` uint8; id 255 is mid grey."""
    colours = [colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, (0.75, 0.5, 0.95)[index % 3],
                                   (0.95, 0.75, 0.55)[index // 3 % 3]) for index in range(255)]
    return (np.array([*colours, (0.5, 0.5, 0.5)]) * 255).round().astype(np.uint8)
