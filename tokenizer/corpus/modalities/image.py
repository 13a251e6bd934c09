"""Colour images.

Letters: B images, H and W the original's rows and columns, h and w those of the crop.
"""
import importlib.util
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from tokenizer.corpus.images import ROUTES, STORED, TURBO, Crop, decode_image, resize
from tokenizer.corpus.modalities.base import QUALITY, Modality, Sums

if TYPE_CHECKING:
    from torch import Tensor

MAX_PSNR = 100.0
"""Decibels; an image reproduced exactly counts as this instead of infinity."""

PICTURE_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""File formats of decoded images, and their suffixes."""


@dataclass(frozen=True, kw_only=True)
class RGB(Modality):
    """Colour images: pixels uint8 RGB, inputs and outputs in ``input_range``.

    Score: ``psnr``, peak signal-to-noise ratio in dB, mean over images.

    Attributes:
        input_range: what black and white are to the model; imported tokenizers may need (0, 1).
        route: how the bytes of a file become pixels, a name of `ROUTES`.
    """
    input_range: tuple[float, float] = (-1.0, 1.0)
    route: str = STORED
    name: ClassVar[str] = "image"
    quality: ClassVar[str] = "psnr"
    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp",
                                           ".bmp", ".tif", ".tiff", ".gif")
    resampling: ClassVar[str] = "bilinear with antialiasing"
    colours_vary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        low, high = self.input_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"input_range must be (low, high), finite, with low < high, got "
                             f"{self.input_range}")
        require_route(self.route)

    @property
    def in_channels(self) -> int:
        return 3

    @property
    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def reading(self) -> str:
        return f"{self.file_modality()} by the route {self.route}"

    def read(self, payload: bytes, name: str) -> np.ndarray:
        return decode_image(payload, self.route)

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return resize(raw, crop, size, "torch" if self.route == TURBO else "smooth")

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        return pixels.permute(0, 3, 1, 2).float() / self._levels + self.input_range[0]

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        levels = ((outputs.float() - self.input_range[0]) * self._levels).clamp(0, 255).round()
        return levels.byte().permute(0, 2, 3, 1)

    def centred(self, inputs: "Tensor") -> "Tensor":
        if self.input_range == RGB.input_range:
            return inputs
        low, high = self.input_range
        return (inputs - low) * (2 / (high - low)) - 1

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
        if picture not in PICTURE_SUFFIXES:
            raise ValueError(f"images are written as {', '.join(PICTURE_SUFFIXES)}; "
                             f"got {picture!r}")
        buffer = io.BytesIO()
        options = {} if picture == "png" else {"quality": quality}
        Image.fromarray(pixels).save(buffer, picture, **options)
        return buffer.getvalue(), PICTURE_SUFFIXES[picture]

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        errors = np.square(outputs.astype(np.float32) - pixels.astype(np.float32))
        squares = errors.mean(axis=(1, 2, 3), dtype=np.float64)
        decibels = 10 * np.log10(255.0 ** 2 / np.maximum(squares, 1e-9))
        return {"psnr": np.minimum(decibels, MAX_PSNR).sum(), "images": np.array(len(pixels))}

    def figures(self, sums: Sums) -> dict[str, float]:
        return {"psnr": float(sums["psnr"] / max(1, sums["images"]))}

    def preprocessing(self) -> dict[str, Any]:
        """As for every modality, but defaults go without saying."""
        described = super().preprocessing()
        defaults = {"input_range": list(RGB.input_range), "route": RGB.route}
        return {name: value for name, value in described.items()
                if name not in defaults or value != defaults[name]}

    @property
    def _levels(self) -> float:
        """Grey levels per unit of the model's inputs."""
        return 255 / (self.input_range[1] - self.input_range[0])


def require_route(route: str) -> None:
    """Refuse what is no route, or none on this machine, so that all take the same.

    Raises:
        ValueError: it is no name of `ROUTES`, or what it needs is not installed.
    """
    if route not in ROUTES:
        raise ValueError(f"route must be {' or '.join(ROUTES)}, got {route!r}")
    if route == TURBO and importlib.util.find_spec("simplejpeg") is None:
        raise ValueError(f"the route {TURBO} needs simplejpeg: pip install 'img2tokens[turbo]'")
