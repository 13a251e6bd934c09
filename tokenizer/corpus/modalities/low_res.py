"""Images of low resolution, computed from images: what a prior for super-resolution is given.

Letters: H and W the original's rows and columns, h and w those of the crop.
"""
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities.image import RGB


@dataclass(frozen=True, kw_only=True)
class LowRes(RGB):
    """The image without its details: scaled down and up again, pixels and inputs as of images.

    Of the crop at its final size every ``factor`` x ``factor`` pixels become one, and these are
    scaled up again, both bicubic, as published. It so keeps the size of the image, and its codes
    pair with the image's cell by cell.

    Score: ``psnr``, peak signal-to-noise ratio in dB, mean over images.

    Attributes:
        factor: how many times coarser it is along each side.
    """
    factor: int = 4
    name: ClassVar[str] = "low_res"
    computed_from: ClassVar[str | None] = RGB.name
    resampling: ClassVar[str] = "bilinear with antialiasing, then bicubic down and up by factor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 2:
            raise ValueError(f"factor must be at least 2, got {self.factor}")

    def fit(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        if height % self.factor or width % self.factor:
            raise ValueError(f"factor {self.factor} must divide both sides of the crop, got "
                             f"{height} x {width} pixels")
        upright = Image.fromarray(
            self.resample(raw, dataclasses.replace(crop, flipped=False), size))
        bicubic = Image.Resampling.BICUBIC
        coarse = upright.resize((width // self.factor, height // self.factor), bicubic)
        pixels = np.array(coarse.resize((width, height), bicubic))
        return np.ascontiguousarray(pixels[:, ::-1]) if crop.flipped else pixels
