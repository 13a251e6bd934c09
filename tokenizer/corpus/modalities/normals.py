"""Surface normals.

Letters: B images, H and W the original's rows and columns, h and w those of the crop.
"""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokenizer.corpus.images import STORED, Crop, UnreadableImage, open_image, resize
from tokenizer.corpus.modalities.base import QUALITY, Sums
from tokenizer.corpus.modalities.image import RGB

LEAST_LENGTH = 0.1
"""Length below which a vector has no direction; grey pixels of 127 or 128 are such."""


@dataclass(frozen=True, kw_only=True)
class Normals(RGB):
    """Surface normals: pixels uint8, x y z as red green blue; inputs as of images.

    Levels 0 to 255 are -1 to 1; alpha is left out. After resampling, vectors get length 1 again;
    where neighbours cancel out or the file has no normal, the pixel is grey, (128, 128, 128).
    Mirroring negates x.

    Score: ``mean_angle``, degrees between found and true normals, mean over the pixels that have a
    true one; a found pixel without direction counts as 90.
    """
    name: ClassVar[str] = "normals"
    quality: ClassVar[str] = "mean_angle"
    lower_is_better: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".tif", ".tiff", ".bmp")
    colours_vary: ClassVar[bool] = False
    resampling: ClassVar[str] = "bilinear with antialiasing, then length 1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.route != STORED:
            raise ValueError(f"normals are directions, not colours, and read as they are stored: "
                             f"leave out the route {self.route}")

    def read(self, payload: bytes, name: str) -> np.ndarray:
        image = open_image(payload)
        if image.mode not in ("RGB", "RGBA"):
            raise UnreadableImage(f"an image of mode {image.mode} where normals are expected; store"
                                  " x, y, z as RGB of 8 bits")
        return np.array(image)[..., :3]

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        planes = [resize(raw[..., axis].astype(np.float32), crop, size) for axis in range(3)]
        vectors = unit_vectors(np.stack(planes, -1))
        pixels = np.floor((vectors + 1) * 127.5 + 0.5).astype(np.uint8)
        if crop.flipped:
            has_one = vectors.any(-1)
            pixels[has_one, 0] = 255 - pixels[has_one, 0]
        return pixels

    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
        return super().write(pixels, "png")

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        truth = unit_vectors(pixels)
        has_one = truth.any(-1)
        truth, found = truth[has_one], unit_vectors(outputs[has_one])
        # Of equal vectors this is exactly 0, which the arc cosine of their product need not be.
        sines = np.linalg.norm(np.cross(found, truth), axis=-1)
        angles = np.degrees(np.arctan2(sines, (found * truth).sum(-1)))
        angles[~found.any(-1)] = 90.0
        return {"angles": angles.sum(), "pixels": has_one.sum()}

    def figures(self, sums: Sums) -> dict[str, float]:
        return {"mean_angle": float(sums["angles"] / max(1, sums["pixels"]))}


def unit_vectors(levels: np.ndarray) -> np.ndarray:
    """Normals of length 1 from levels ``(..., 3)`` of 0 to 255; zeros where they have none."""
    vectors = levels.astype(np.float64) / 127.5 - 1
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths >= LEAST_LENGTH)
