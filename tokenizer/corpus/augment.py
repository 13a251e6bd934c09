"""Augmentation: the random crop, scale and mirroring of a training image, drawn once for all of it.

A draw is a function of the seed and a position in the stream of training images, and of the size of
what is cropped. An image and its maps therefore get the same box, which each modality then applies
in its own way: `Modality.fit` resamples labels by their centres, and negates x of mirrored normals.
"""
from dataclasses import dataclass

import numpy as np

from tokenizer.corpus.images import Crop, centre_crop


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images vary.

    Attributes:
        seed: of all draws.
        crop_share: smallest side of a crop as a share of the largest possible; 1 takes the centred
            crop of the encode job.
        flip: whether every other image is mirrored, left to right.
    """
    seed: int = 0
    crop_share: float = 0.8
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share must lie in (0, 1], got {self.crop_share}")

    def crop(self, height: int, width: int, size: tuple[int, int], position: int) -> Crop:
        """The crop of a training image.

        Its side is uniform between ``crop_share`` and all of the largest possible one, and so is
        its place.

        Args:
            height: rows of the image and of its maps; ``width`` likewise.
            size: target h and w in pixels, which give the aspect ratio.
            position: number of the image in the stream of training images.
        """
        whole = centre_crop(height, width, size)
        share, down, right, mirror = np.random.default_rng((self.seed, position)).random(4)
        flipped = bool(self.flip and mirror < 0.5)
        if self.crop_share == 1:
            return Crop(left=whole.left, top=whole.top, width=whole.width, height=whole.height,
                        flipped=flipped)
        side = self.crop_share + (1 - self.crop_share) * share
        rows, columns = max(1, round(whole.height * side)), max(1, round(whole.width * side))
        return Crop(left=int(right * (width - columns + 1)), top=int(down * (height - rows + 1)),
                    width=columns, height=rows, flipped=flipped)
