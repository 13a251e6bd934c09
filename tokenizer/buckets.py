"""Aspect-ratio buckets: sizes of pictures, of which each image takes the one nearest in shape.

Images that are wide, square and tall so keep most of what they show. All modalities of an image
take the same bucket. Sizes are ordered from the widest to the tallest, however they are given, and
comparisons are of whole numbers, so that every machine chooses alike.

Letters: H and W height and width of an image, h and w those of a bucket.
"""
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Size = tuple[int, int]

MAX_STEPS = 1000
"""Of the longest side of `sizes_of_area`; there are at most twice as many sizes."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One size of pictures.

    Attributes:
        image_size: h and w in pixels.
        grid: rows and columns of the code grid of such a picture.
    """
    image_size: Size
    grid: Size

    @property
    def name(self) -> str:
        """Height and width as options take them: ``256x384``."""
        return size_name(self.image_size)


def size_name(size: Size) -> str:
    """Height and width as one word: ``256x384``."""
    return f"{size[0]}x{size[1]}"


def in_order(sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Sizes from the widest to the tallest.

    Raises:
        ValueError: there is only one, or a side is below 1, or two have the same ratio, of which
            one would never be chosen.
    """
    for size in sizes:
        if min(size) < 1:
            raise ValueError(f"both sides of a bucket are at least 1 pixel, got {size_name(size)}")
    if len(sizes) == 1:
        raise ValueError("an image takes the nearest of several buckets, got "
                         f"{size_name(sizes[0])} alone: use --size {size_name(sizes[0])}, or give "
                         "more")
    ordered = sorted(sizes, key=lambda size: Fraction(*size))
    for one, other in itertools.pairwise(ordered):
        if Fraction(*one) == Fraction(*other):
            raise ValueError(f"buckets differ in their ratio of height to width, got "
                             f"{size_name(one)} and {size_name(other)}: leave out one of them")
    return tuple(ordered)


def sizes_of_area(num_pixels: int, step: int = 64, ratio: Fraction = Fraction(4),
                  ) -> tuple[Size, ...]:
    """Sizes of nearly one area: to each height the greatest width within it, and the reverse.

    The greatest square is one of them.

    Args:
        num_pixels: the area, which none exceeds.
        step: pixels of which sides are multiples.
        ratio: of the longer to the shorter side, at most.
    Returns:
        `in_order`.
    Raises:
        ValueError: there are fewer than two, or far too many.

    Source: NovelAI/novelai-aspect-ratio-bucketing, README; and kohya-ss/sd-scripts,
    `make_bucket_resolutions`, of which this is the list where its least and greatest sides are half
    and twice that of a square.
    """
    if step < 1 or ratio < 1:
        raise ValueError(f"step is at least 1 pixel and ratio at least 1, got {step} and "
                         f"{float(ratio):g}")
    if not (num_cells := num_pixels // step ** 2):
        raise ValueError(f"an area of {num_pixels} pixels holds no square of {step}: take a "
                         "smaller step")
    if (longest := math.isqrt(int(num_cells * ratio))) > MAX_STEPS:
        raise ValueError(f"sides of up to {longest} steps of {step} make too many buckets: take a "
                         f"step of {step * -(-longest // MAX_STEPS)} or more")
    square = math.isqrt(num_cells)
    found = {(square, square)}
    for side in range(1, longest + 1):
        other = num_cells // side
        if max(side, other) <= ratio * min(side, other):
            found |= {(side, other), (other, side)}
    return in_order([(step * rows, step * columns) for rows, columns in found])


def nearest(height: int, width: int, sizes: Sequence[Size]) -> int:
    """The place of the size whose ratio is nearest to that of an image, by its logarithm.

    |log(H / W) - log(h / w)| is least; of two that are equally near it is the first.

    Source: NovelAI's aspect-ratio bucketing, and Podell et al. 2023, arXiv:2307.01952 (SDXL),
    section 2.3.
    """
    def distance(place: int) -> Fraction:
        """The factor, at least 1, between the two ratios: it grows with the distance."""
        products = height * sizes[place][1], width * sizes[place][0]
        return Fraction(max(products), min(products))
    return min(range(len(sizes)), key=distance)
