"""Edge maps, computed from images.

Letters: B images, H and W the original's rows and columns, h and w those of the crop.
"""
import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from tokenizer.corpus.images import STORED, Crop
from tokenizer.corpus.modalities.base import QUALITY, Modality, Sums
from tokenizer.corpus.modalities.image import RGB, require_route

if TYPE_CHECKING:
    from torch import Tensor

HALF = 128
"""Grey level from which a pixel of a reconstruction counts as an edge."""


@dataclass(frozen=True, kw_only=True)
class Edges(Modality):
    """Canny edges of the image: pixels uint8, 0 or 255; inputs one channel, -1 or 1.

    They are found in the crop at its final size, and mirrored with it. Decoded edges are grey.
    Score: ``f1``, of the pixels that are edges (at least 128), each in its exact place.

    Attributes:
        sigma: deviation of the Gaussian that smooths the grey crop first, in pixels.
        low: gradient, as a share of a step from black to white, from which a pixel goes on with an
            edge that another pixel begins.
        high: gradient from which a pixel begins an edge.
        route: as of `RGB`.

    Source: Canny 1986, IEEE TPAMI 8(6); scikit-image's implementation, whose default thresholds
    and ``sigma`` 2 are those of the published model with edges as condition.
    """
    sigma: float = 2.0
    low: float = 0.1
    high: float = 0.2
    route: str = STORED
    name: ClassVar[str] = "edges"
    quality: ClassVar[str] = "f1"
    computed_from: ClassVar[str | None] = RGB.name
    suffixes: ClassVar[tuple[str, ...]] = RGB.suffixes
    resampling: ClassVar[str] = RGB.resampling

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 100:
            raise ValueError(f"sigma must be in [0, 100] pixels, got {self.sigma}")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError("low and high must be thresholds with 0 <= low <= high <= 1, got "
                             f"{self.low} and {self.high}")
        require_route(self.route)

    @property
    def in_channels(self) -> int:
        return 1

    @property
    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def reading(self) -> str:
        return RGB(route=self.route).reading

    def read(self, payload: bytes, name: str) -> np.ndarray:
        return RGB(route=self.route).read(payload, name)

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return RGB(route=self.route).resample(raw, crop, size)

    def fit(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        upright = self.resample(raw, dataclasses.replace(crop, flipped=False), size)
        edges = canny_edges(upright, self.sigma, self.low, self.high)
        return np.ascontiguousarray(edges[:, ::-1]) if crop.flipped else edges

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        return pixels[:, None].float() / 127.5 - 1

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        return ((outputs[:, 0].float() + 1) * 127.5).clamp(0, 255).round().byte()

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[..., None].repeat(3, -1)

    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue(), ".png"

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        found, truth = outputs >= HALF, pixels >= HALF
        return {"found": found.sum(), "true": truth.sum(), "both": (found & truth).sum()}

    def figures(self, sums: Sums) -> dict[str, float]:
        either = sums["found"] + sums["true"]
        return {"f1": float(2 * sums["both"] / either) if either else 1.0}

    def preprocessing(self) -> dict[str, Any]:
        """As for every modality, but the default ``route`` goes without saying."""
        described = super().preprocessing()
        if self.route == STORED:
            del described["route"]
        return described


def canny_edges(image: np.ndarray, sigma: float, low: float, high: float) -> np.ndarray:
    """Canny edges of an image.

    Args:
        image: ``(h, w, 3)`` uint8.
        sigma, low, high: see `Edges`.
    Returns:
        ``(h, w)`` uint8: 255 on edges, else 0.
    """
    from skimage.color import rgb2gray
    from skimage.feature import canny  # with SciPy, half a second
    found = canny(rgb2gray(image), sigma=sigma, low_threshold=low, high_threshold=high)
    edges: np.ndarray = found.astype(np.uint8) * np.uint8(255)
    return edges
