"""Depth maps, and the recipes that bring them to 16 bits.

Letters: B images, H and W the original's rows and columns, h and w those of the crop.
"""
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokenizer.corpus.images import Crop, resize
from tokenizer.corpus.maps import decode_depth, encode_depth
from tokenizer.corpus.modalities.base import QUALITY, Modality, Sums
from tokenizer.pictures import colour_depth

if TYPE_CHECKING:
    from torch import Tensor

TAIL = 0.1
"""Share of a crop's pixels at each end that truncated standardisation leaves out of its moments."""

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""A deviation of this share of the values or less is rounding of float32, not depth."""

MAX_DEVIATIONS = 8.0
"""Standardised depth is clipped this many deviations from its mean."""

LEAST_SHARE = 0.01
"""Relative errors are taken where the true depth is at least this share of the greatest one."""

NEAR = 1.25
"""Ratio of depths below which ``delta1`` counts a pixel as right."""


@dataclass(frozen=True, kw_only=True)
class Depth(Modality):
    """Depth maps: pixels uint16, 0 to 65535; inputs one channel.

    Scores: ``abs_rel``, mean of |d - d*| / d* where d* is at least 1 % of the greatest depth;
    ``delta1``, share of these pixels with max(d / d*, d* / d) < 1.25; and ``rmse``. They are taken
    in the units of the files with a ``range``, else in shares of each crop's span; of standardised
    depth, which has no zero, there is ``rmse`` alone, in deviations. With ``inverse`` and a
    ``range``, true pixels of level 0 count in none: they have no measurement, or are too far.

    Attributes:
        range: the depths, in the units of the files, that become 0 and 65535; beyond them values
            are clipped. Without a range ``scaling`` decides.
        scaling: ``min_max``, each crop's own least and greatest value become 0 and 65535, and a
            constant crop becomes 0; or ``standardised``, each crop less its mean, divided by its
            deviation, both without the tenth of the pixels at each end (Mizrahi et al. 2023,
            arXiv:2312.06647).
        inverse: whether 1 / depth is taken first, so that near things get most levels; a ``range``
            is then still one of depths, and its far end becomes 0. Depth of 0 or less, such as
            pixels without a measurement, counts as infinitely far.
    """
    range: tuple[float, float] | None = None
    scaling: str = "min_max"
    inverse: bool = False
    name: ClassVar[str] = "depth"
    quality: ClassVar[str] = "rmse"
    lower_is_better: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npy", ".tif", ".tiff")
    resampling: ClassVar[str] = "bilinear with antialiasing"

    def __post_init__(self) -> None:
        if self.scaling not in ("min_max", "standardised"):
            raise ValueError(f"scaling must be min_max or standardised, got {self.scaling!r}")
        if self.range is None:
            return
        low, high = self.range
        if not -math.inf < low < high < math.inf:
            raise ValueError("range must be (low, high), finite, with low < high, got "
                             f"{self.range}")
        if self.inverse and low <= 0:
            raise ValueError("with inverse, range must begin above 0, as 1 / 0 has no level, got "
                             f"{self.range}")
        if self.scaling == "standardised":
            raise ValueError(f"range is {self.range} and scaling standardised; each alone decides "
                             "the levels: leave one of them out")

    @property
    def in_channels(self) -> int:
        return 1

    @property
    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16)

    def check_pixels(self, pixels: np.ndarray) -> None:
        if pixels.dtype == np.uint8:
            raise ValueError("depth pixels must be uint16, got uint8: convert 8-bit depth with "
                             "pixels.astype('uint16') * 257")
        super().check_pixels(pixels)

    def read(self, payload: bytes, name: str) -> np.ndarray:
        depth = decode_depth(payload)
        return inverse_depth(depth) if self.inverse else depth

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return resize(raw, crop, size)

    def fit(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        values = self.resample(raw, crop, size).astype(np.float64)
        low, high = self._span or (float(values.min()), float(values.max()))
        if self.scaling == "standardised":
            values, low, high = standardise(values), -MAX_DEVIATIONS, MAX_DEVIATIONS
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
        return (share.clip(0, 1) * 65535 + 0.5).astype(np.uint16)

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        """Pixels ``(B, h, w)`` to ``(B, 1, h, w)``: [-1, 1], or deviations where standardised."""
        return pixels[:, None].float() / (32767.5 / self._largest_input) - self._largest_input

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        import torch
        shifted = outputs[:, 0].float() + self._largest_input
        levels = (shifted * (32767.5 / self._largest_input)).clamp(0, 65535).round()
        return levels.to(torch.uint16)

    def centred(self, inputs: "Tensor") -> "Tensor":
        return inputs / self._largest_input

    def depth(self, pixels: np.ndarray) -> np.ndarray:
        """What pixels ``(..., h, w)`` stand for, float64; see `unit`."""
        share = pixels.astype(np.float64) / 65535
        if self._span is None:
            standardised = self.scaling == "standardised"
            return (2 * share - 1) * MAX_DEVIATIONS if standardised else share
        low, high = self._span
        values = low + share * (high - low)
        return 1 / values if self.inverse else values

    @property
    def unit(self) -> str:
        """What a level of decoded pixels means, in words."""
        what = "1 / depth" if self.inverse else "depth"
        if self._span is not None:
            low, high = self._span
            return f"{what} = {low:.9g} + level / 65535 * {high - low:.9g}, in units of the files"
        if self.scaling == "standardised":
            return (f"(level / 65535 * 2 - 1) * {MAX_DEVIATIONS:g} deviations of {what} from its "
                    f"mean, both of the crop without {TAIL:.0%} at each end")
        return f"level / 65535 of the way from the crop's least to its greatest {what}"

    def preprocessing(self) -> dict[str, Any]:
        """As for every modality, but defaults of ``scaling`` and ``inverse`` go without saying;
        where one is not the default, the `unit` of decoded pixels is said too."""
        described = super().preprocessing()
        defaults = {"scaling": Depth.scaling, "inverse": Depth.inverse}
        said = {name for name, default in defaults.items() if described[name] != default}
        for name in defaults.keys() - said:
            del described[name]
        return {**described, "unit": self.unit} if said else described

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return colour_depth(pixels)

    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
        return encode_depth(pixels), ".png"

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        if self.inverse and self.range is not None:
            outputs, pixels = outputs[pixels > 0], pixels[pixels > 0]
        found, truth = self.depth(outputs), self.depth(pixels)
        sums = {"squares": np.square(found - truth).sum(), "pixels": np.array(truth.size)}
        if self.scaling == "standardised":
            return sums
        greatest = 1.0 if self.range is None else self.range[1]
        far = (truth > 0) & (truth >= LEAST_SHARE * greatest)
        found, truth = found[far], truth[far]
        near = (found < NEAR * truth) & (truth < NEAR * found)
        return {**sums, "relative": (np.abs(found - truth) / truth).sum(), "near": near.sum(),
                "far": far.sum()}

    def figures(self, sums: Sums) -> dict[str, float]:
        rmse = {"rmse": float(np.sqrt(sums["squares"] / max(1, sums["pixels"])))}
        if self.scaling == "standardised":
            return rmse
        num_far = max(1, sums["far"])
        return {"abs_rel": float(sums["relative"] / num_far), **rmse,
                "delta1": float(sums["near"] / num_far) if sums["far"] else 1.0}

    @property
    def _span(self) -> tuple[float, float] | None:
        """What becomes 0 and 65535 in every crop, of depth or of inverse depth."""
        if self.range is None or not self.inverse:
            return self.range
        return 1 / self.range[1], 1 / self.range[0]

    @property
    def _largest_input(self) -> float:
        return MAX_DEVIATIONS if self.scaling == "standardised" else 1.0


def inverse_depth(depth: np.ndarray) -> np.ndarray:
    """1 / depth as float32, of the shape of ``depth``; 0 where depth is 0 or less."""
    inverse = np.zeros(depth.shape, np.float32)
    return np.divide(1, depth, out=inverse, where=depth >= np.finfo(np.float32).tiny,
                     casting="same_kind")


def standardise(values: np.ndarray) -> np.ndarray:
    """Values in deviations from their mean, both taken without the tails; zeros where constant.

    Where all but the tails is constant, as of a wall with a small thing before it, both are those
    of all values. Published training adds 1e-6 to the variance of depths in [0, 1] instead; here,
    where files are of any unit, `ROUNDING` says what is constant.

    Args:
        values: ``(h, w)`` float64; the least and the greatest `TAIL` of them count in no moment.
    Source: truncated depth standardisation of Mizrahi et al. 2023, arXiv:2312.06647.
    """
    ordered = np.sort(values, axis=None)
    core = ordered[int(TAIL * ordered.size):int((1 - TAIL) * ordered.size)]
    for kept in (core, ordered):
        deviation = float(kept.std(ddof=1)) if kept.size > 1 else 0.0
        if deviation > ROUNDING * float(np.abs(kept).max(initial=0)):
            standardised: np.ndarray = (values - kept.mean()) / deviation
            return standardised
    return np.zeros_like(values)
