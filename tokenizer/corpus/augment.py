"""Augmentation: random crop, scale, mirroring and colours of a training image, drawn once for it.

A draw is a function of the seed and a position in the stream of training images, and of the size of
what is cropped. An image and its maps therefore get the same box, which each modality then applies
in its own way: `Modality.fit` resamples labels by their centres, and negates x of mirrored normals.
"""
import dataclasses
from dataclasses import dataclass

import numpy as np

from tokenizer.corpus.images import Crop, centre_crop

COLOURS = 1
"""Sets the draws of colours apart from those of crops."""


@dataclass(frozen=True)
class Recolouring:
    """A change of an image's colours.

    Attributes:
        contrast: factor of every level's distance from the image's mean level.
        gains: factors of red, green and blue, after that.
    """
    contrast: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The image ``(h, w, 3)`` uint8 with other colours, uint8, clipped."""
        levels = pixels.astype(np.float32)
        mean = levels.mean()
        levels = (levels - mean) * np.float32(self.contrast) + mean
        levels *= np.array(self.gains, np.float32)
        return (levels + 0.5).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images vary.

    Attributes:
        seed: of all draws.
        crop_share: smallest side of a crop as a share of the largest possible; 1 takes the centred
            crop of the encode job.
        flip: whether every other image is mirrored, left to right.
        colours: largest change of contrast, and of each colour's gain, as a share; 0 keeps colours.
    """
    seed: int = 0
    crop_share: float = 0.8
    flip: bool = True
    colours: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share must lie in (0, 1], got {self.crop_share}")
        if not 0 <= self.colours < 1:
            raise ValueError(f"colours must lie in [0, 1), got {self.colours}")

    def recolouring(self, position: int) -> Recolouring:
        """The change of colours of the training image at ``position`` of the stream."""
        draws = np.random.default_rng((self.seed, position, COLOURS)).uniform(-1, 1, 4)
        contrast, red, green, blue = (float(1 + self.colours * draw) for draw in draws)
        return Recolouring(contrast=contrast, gains=(red, green, blue))

    def crop(self, height: int, width: int, size: tuple[int, int], position: int) -> Crop:
        """The crop of a training image.

        Its side is uniform between ``crop_share`` and all of the largest possible one, and so is
        its place.

        Args:
            height: rows of the image and of its maps; ``width`` likewise.
            size: target h and w in pixels, which give the aspect ratio.
            position: number of the image in the stream of training images.
        """
        draws = draw(self.seed, position)
        box = (centre_crop(height, width, size) if self.crop_share == 1
               else drawn_crop(height, width, size, (self.crop_share, 1), draws))
        return dataclasses.replace(box, flipped=bool(self.flip and draws[3] < 0.5))


def draw(seed: int, position: int) -> np.ndarray:
    """Four numbers in [0, 1), float64: of side, place down, place to the right, and mirroring."""
    return np.random.default_rng((seed, position)).random(4)


def drawn_crop(height: int, width: int, size: tuple[int, int], sides: tuple[float, float],
               draws: np.ndarray) -> Crop:
    """A crop of drawn side and place, not mirrored.

    Args:
        height, width, size: as `Augmentation.crop` takes them.
        sides: least and greatest side, as shares of the largest possible one.
        draws: as `draw` returns them.
    """
    whole = centre_crop(height, width, size)
    share, down, right = draws[:3]
    side = sides[0] + (sides[1] - sides[0]) * share
    rows, columns = max(1, round(whole.height * side)), max(1, round(whole.width * side))
    return Crop(left=int(right * (width - columns + 1)), top=int(down * (height - rows + 1)),
                width=columns, height=rows)
