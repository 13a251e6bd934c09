"""A test pattern through a tokenizer and back: what an import shows of itself.

Letters: H and W sides of the image, K codebook size.
"""
from dataclasses import dataclass

import numpy as np

from tokenizer.codec import Codec
from tokenizer.corpus.modalities import Modality, Segmentation


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """What became of a test pattern.

    Attributes:
        num_codes: codes of the pattern.
        num_distinct: how many of them are different entries; 1 says that all is alike to it.
        num_unstable: codes that were others when the pattern was encoded a second time.
        num_changed: codes that are others once the pattern is decoded and encoded again.
        figures: the score of the decoded pattern, as the modality measures it.
    """
    num_codes: int
    num_distinct: int
    num_unstable: int
    num_changed: int
    figures: dict[str, float]

    def text(self) -> str:
        """In one line."""
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        alike = "; all cells alike: is --input-range right?" if self.num_distinct == 1 else ""
        return (f"{self.num_codes} codes of a test pattern, {self.num_distinct} distinct; encoded "
                f"twice {self.num_unstable} differ, decoded and encoded again {self.num_changed}; "
                f"{figures}{alike}")


def check_codec(codec: Codec) -> SelfCheck:
    """Encode, decode and encode a test pattern."""
    pixels = draw_pattern(codec.modality, codec.spec.image_size)
    codes = codec.encode(pixels)
    decoded = codec.decode(codes)
    return SelfCheck(
        num_codes=int(codes.size), num_distinct=len(np.unique(codes)),
        num_unstable=int((codec.encode(pixels) != codes).sum()),
        num_changed=int((codec.encode(decoded) != codes).sum()),
        figures={name: round(value, 6)
                 for name, value in codec.modality.difference(decoded, pixels).items()})


def draw_pattern(modality: Modality, size: tuple[int, int]) -> np.ndarray:
    """Waves and a disc, one item ``(1, H, W[, 3])`` of the modality's pixels."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width] / max(size)
    waves = np.stack([0.5 + 0.4 * np.sin(7 * rows + 3 * columns), rows, columns], axis=-1)
    waves[(rows - 0.4) ** 2 + (columns - 0.6) ** 2 < 0.04] = (0.9, 0.3, 0.1)
    if isinstance(modality, Segmentation):
        ids = np.minimum((waves[..., 0] * modality.num_classes).astype(np.int64),
                         modality.num_classes - 1)
        return ids[None].astype(modality.pixel_dtype)
    levels = (waves * np.iinfo(modality.pixel_dtype).max).round().astype(modality.pixel_dtype)
    return levels[None] if modality.in_channels == 3 else levels[None, ..., 0]
