"""The picture of an evaluation: samples beside their maps and nearest rows, and a histogram.

Letters: N samples shown, H and W sides of a picture in pixels, M shares.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from prior.evaluation import resample
from prior.gallery import Decoder, show
from prior.report.diversity import NUM_BINS
from tokenizer.pictures import colour_codes, enlarge
from tokenizer.schema import CodeSpec

CAPTION, PADDING, LEAST_SIDE = 14, 4, 96
"""Pixels: height of a caption, space between pictures, side up to which pictures are enlarged."""
WIDTH, HEIGHT, MARGIN = 800, 220, 40
"""Of the histogram and of what surrounds it, in pixels."""
INK, FRAME = (40, 40, 40), (190, 190, 190)
COLOURS = ((200, 90, 30), (31, 90, 160))
"""Of the histograms' lines, in turn."""


@dataclass(frozen=True)
class Column:
    """Pictures below each other.

    Attributes:
        captions: one for each picture.
        pictures: ``(N, H, W, 3)`` uint8.
    """
    captions: Sequence[str]
    pictures: np.ndarray


def pictures_of(spec: CodeSpec, decoder: Decoder | None, codes: np.ndarray) -> np.ndarray:
    """Codes ``(N[, D], h, w)`` decoded, or without a decoder as coloured cells, the first of each.
    """
    if decoder is not None:
        return show(decoder, codes)
    first = codes if spec.depth == 1 else codes[:, 0]
    factor = -(-LEAST_SIDE // min(spec.grid))
    return colour_codes(first, spec.codebook_size, (spec.grid[0] * factor, spec.grid[1] * factor))


def draw_sheet(columns: Sequence[Column], shares: Mapping[str, np.ndarray]) -> np.ndarray:
    """Columns side by side, each picture under its caption, and below them a histogram of shares.

    Args:
        columns: the first one's pictures set the size.
        shares: by name, ``(M,)`` in [0, 1]; none leave the histogram out.
    Returns:
        ``(height, width, 3)`` uint8.
    """
    panels = [draw_grid(columns), *([draw_histogram(shares)] if shares else [])]
    widest = max(panel.shape[1] for panel in panels)
    return np.concatenate([np.pad(panel, ((0, 0), (0, widest - panel.shape[1]), (0, 0)),
                                  constant_values=255) for panel in panels])


def draw_grid(columns: Sequence[Column]) -> np.ndarray:
    """Columns side by side as often as `WIDTH` has room for them, ``(H, W, 3)`` uint8."""
    size = columns[0].pictures.shape[1:3]
    factor = max(1, -(-LEAST_SIDE // min(size)))
    across, down = max(size[1] * factor, LEAST_SIDE) + PADDING, size[0] * factor + CAPTION + PADDING
    num_blocks = max(1, WIDTH // (across * len(columns)))
    num_rows = -(-len(columns[0].pictures) // num_blocks)
    grid = Image.new("RGB", (across * len(columns) * num_blocks + PADDING,
                             down * num_rows + PADDING), "white")
    draw = ImageDraw.Draw(grid)
    for place, column in enumerate(columns):
        pictures = enlarge(resample(column.pictures, (size[0], size[1])), factor)
        for item, (caption, picture) in enumerate(zip(column.captions, pictures, strict=True)):
            left = PADDING + (item // num_rows * len(columns) + place) * across
            top = PADDING + item % num_rows * down
            draw.text((left, top), _fitting(draw, caption, across - PADDING), fill=INK)
            grid.paste(Image.fromarray(picture), (left, top + CAPTION))
    return np.asarray(grid)


def draw_histogram(shares: Mapping[str, np.ndarray]) -> np.ndarray:
    """Shares of equal codes as outlines of histograms, ``(H, W, 3)`` uint8; 1 is a copy."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    heights = {name: np.histogram(values, NUM_BINS, (0, 1))[0] / len(values)
               for name, values in shares.items()}
    top = max(float(bars.max()) for bars in heights.values())
    box = (MARGIN, MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN)
    draw.rectangle(box, outline=FRAME)
    draw.text((2, MARGIN), f"{top:.0%}", fill=INK)
    for share in (0, 0.25, 0.5, 0.75, 1):
        draw.text((box[0] + share * (box[2] - box[0]) - 8, box[3] + 4), f"{share:g}", fill=INK)
    draw.text((MARGIN, HEIGHT - 18), "share of codes equal to those of the nearest row of training",
              fill=INK)
    draw.text((MARGIN, 2), "above: each sample, what it was given, and its nearest row of training "
              "with the share of codes equal to it", fill=INK)
    left = MARGIN
    for colour, (name, bars) in zip(COLOURS, heights.items(), strict=False):
        draw.line(_outline(bars / top, box), fill=colour, width=2)
        draw.text((left, 16), name, fill=colour)
        left += int(draw.textlength(name)) + 24
    return np.asarray(picture)


def _outline(bars: np.ndarray, box: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    """Corners of the outline of bars, ``(NUM_BINS,)`` in [0, 1], in a box of pixels."""
    left, top, right, bottom = box
    edges = np.linspace(left, right, len(bars) + 1).repeat(2)[1:-1]
    downs = bottom - bars.repeat(2) * (bottom - top)
    return list(zip(edges.tolist(), downs.tolist(), strict=True))


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """As much of a text's end as fits, in letters that every font of Pillow has."""
    text = text.encode("ascii", "replace").decode()
    while text and draw.textlength(text) > width:
        text = text[1:]
    return text
