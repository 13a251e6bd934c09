"""Aspect-ratio buckets: sizes of pictures, of which each image takes the one nearest in shape.

Images that are wide, square and tall so keep most of what they show. All modalities of an image
take the same bucket. Sizes are ordered from the widest to the tallest, however they are given, and
comparisons are of whole numbers, so that every machine chooses alike.

Letters: H and W height and width of an image, h and w those of a bucket.
"""
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Size = tuple[int, int]


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
