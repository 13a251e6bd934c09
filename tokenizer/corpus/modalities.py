"""Modalities: what a picture's pixels mean, from the bytes of a file to the model's input and back.

    file --read--> raw --fit--> pixels --to_inputs--> model --to_pixels--> pixels --write--> file

A modality is a frozen config; its settings travel in checkpoints and specs. To add one, subclass
`Modality` here and list it in `MODALITIES`; training and the jobs find it there by name. Reading
and fitting need numpy alone; torch is used by the methods that take tensors.

Letters: B images, C channels, H and W the original's rows and columns, h and w those of the crop.
"""
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from tokenizer import configs
from tokenizer.corpus.images import Crop, UnreadableImage, decode_image, resize
from tokenizer.corpus.maps import decode_depth, decode_labels, encode_depth, encode_labels
from tokenizer.pictures import colour_depth, colour_labels

if TYPE_CHECKING:
    from torch import Tensor

MAX_PSNR = 100.0
"""Decibels; an image reproduced exactly counts as this instead of infinity."""

PICTURE_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""File formats of decoded images, and their suffixes."""

Sums = dict[str, np.ndarray]
"""What the pixels of some images add to a score; sums of more images are added by name."""


class LabelOutOfRange(ValueError):
    """A map holds a class id that the modality does not know."""


class SizeMismatch(ValueError):
    """A map has another size than its image."""


@dataclass(frozen=True, kw_only=True)
class Modality(ABC):
    """One kind of picture. Fields of a subclass are its settings.

    Attributes:
        name: its name in options, columns and specs.
        suffixes: lower-case suffixes of the files that hold it.
        resampling: how crops are resampled, for the spec.
    """
    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    resampling: ClassVar[str]

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of the encoder's input."""

    @property
    def out_channels(self) -> int:
        """Channels of the decoder's output."""
        return self.in_channels

    @property
    @abstractmethod
    def pixel_dtype(self) -> np.dtype[Any]:
        """Type of integer pixels: uint8 or uint16."""

    @abstractmethod
    def read(self, payload: bytes, name: str) -> np.ndarray:
        """Decode a file.

        Args:
            name: the file's name or URL, for formats that their bytes do not tell.
        Returns:
            ``(H, W, 3)`` uint8, or ``(H, W)`` float32 or uint16.
        Raises:
            UnreadableImage: the file is damaged or holds something else.
            LabelOutOfRange: it holds a class id beyond the settings.
        """

    @abstractmethod
    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        """Crop and resample what `read` returned to ``(h, w[, 3])``, in the units of ``raw``."""

    def fit(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        """Crop and resample what `read` returned to pixels ``(h, w[, 3])`` of `pixel_dtype`."""
        return self.resample(raw, crop, size)

    def check_pixels(self, pixels: np.ndarray) -> None:
        """Refuse pixels that `fit` cannot have returned.

        Raises:
            ValueError: they are not of `pixel_dtype`.
            LabelOutOfRange: they hold a class id beyond the settings.
        """
        if pixels.dtype != self.pixel_dtype:
            raise ValueError(f"{self.name} pixels must be {self.pixel_dtype}, got {pixels.dtype}")

    @abstractmethod
    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        """Pixels ``(B, h, w[, 3])``, integer, to model inputs ``(B, C, h, w)``, float32."""

    @abstractmethod
    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        """Model outputs ``(B, C, h, w)``, float, to pixels ``(B, h, w[, 3])`` of `pixel_dtype`."""

    def reconstruction_loss(self, outputs: "Tensor", pixels: "Tensor") -> "Tensor":
        """Mean loss of outputs ``(B, C, h, w)`` against the pixels they should be; float32 scalar.

        Absolute difference to `to_inputs` unless a subclass says otherwise.
        """
        return (outputs.float() - self.to_inputs(pixels)).abs().mean()

    @abstractmethod
    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels ``(B, h, w[, 3])`` as pictures for people, ``(B, h, w, 3)`` uint8."""

    @abstractmethod
    def write(self, pixels: np.ndarray, picture: str = "png") -> tuple[bytes, str]:
        """One item's pixels ``(h, w[, 3])`` as a file and its suffix.

        Args:
            picture: a name of `PICTURE_SUFFIXES`; maps are always PNG, which is exact.
        """

    @abstractmethod
    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        """What these images add to the score of `figures`.

        Args:
            outputs: reconstructed pixels ``(B, h, w[, 3])`` of `pixel_dtype`.
            pixels: the originals, likewise.
        """

    @abstractmethod
    def figures(self, sums: Sums) -> dict[str, float]:
        """The score of all images whose `sums` were added up, by name."""

    def difference(self, outputs: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
        """The score of reconstructed pixels; for more than fits in memory, add up `sums`."""
        return self.figures(self.sums(outputs, pixels))

    def preprocessing(self) -> dict[str, Any]:
        """How bytes become pixels, as JSON values for a `CodeSpec`: settings, crop, resampling."""
        return {**modality_to_dict(self), "crop": "centre", "resampling": self.resampling}


@dataclass(frozen=True, kw_only=True)
class RGB(Modality):
    """Colour images: pixels uint8 RGB, inputs and outputs in ``input_range``.

    Score: ``psnr``, peak signal-to-noise ratio in dB, mean over images.

    Attributes:
        input_range: what black and white are to the model; imported tokenizers may need (0, 1).
    """
    input_range: tuple[float, float] = (-1.0, 1.0)
    name: ClassVar[str] = "image"
    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp",
                                           ".bmp", ".tif", ".tiff", ".gif")
    resampling: ClassVar[str] = "bilinear with antialiasing"

    def __post_init__(self) -> None:
        low, high = self.input_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"input_range must be (low, high), finite, with low < high, got "
                             f"{self.input_range}")

    @property
    def in_channels(self) -> int:
        return 3

    @property
    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def read(self, payload: bytes, name: str) -> np.ndarray:
        return decode_image(payload)

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return resize(raw, crop, size)

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        return pixels.permute(0, 3, 1, 2).float() / self._levels + self.input_range[0]

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        levels = ((outputs.float() - self.input_range[0]) * self._levels).clamp(0, 255).round()
        return levels.byte().permute(0, 2, 3, 1)

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def write(self, pixels: np.ndarray, picture: str = "png") -> tuple[bytes, str]:
        if picture not in PICTURE_SUFFIXES:
            raise ValueError(f"images are written as {', '.join(PICTURE_SUFFIXES)}; "
                             f"got {picture!r}")
        buffer = io.BytesIO()
        options = {} if picture == "png" else {"quality": 95}
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
        """As for every modality, but a default ``input_range`` goes without saying."""
        described = super().preprocessing()
        if self.input_range == RGB.input_range:
            del described["input_range"]
        return described

    @property
    def _levels(self) -> float:
        """Grey levels per unit of the model's inputs."""
        return 255 / (self.input_range[1] - self.input_range[0])


@dataclass(frozen=True, kw_only=True)
class Depth(Modality):
    """Depth maps: pixels uint16, 0 to 65535 over the range; inputs one channel in [-1, 1].

    Score: ``abs_rel``, mean of |d - d*| / d* where d* is at least 1 % of the range, and ``rmse``,
    as a share of the range.

    Attributes:
        range: the values, in the units of the files, that become 0 and 65535; beyond them values
            are clipped. Without a range each crop's own least and greatest value are taken, and a
            constant crop becomes 0.
    """
    range: tuple[float, float] | None = None
    name: ClassVar[str] = "depth"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npy", ".tif", ".tiff")
    resampling: ClassVar[str] = "bilinear with antialiasing"

    def __post_init__(self) -> None:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must be (low, high) with low < high, got {self.range}")

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
        return decode_depth(payload)

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return resize(raw, crop, size)

    def fit(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        depth = self.resample(raw, crop, size).astype(np.float64)
        low, high = self.range or (float(depth.min()), float(depth.max()))
        share = (depth - low) / (high - low) if high > low else np.zeros_like(depth)
        return (share.clip(0, 1) * 65535 + 0.5).astype(np.uint16)

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        return pixels[:, None].float() / 32767.5 - 1

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        import torch
        levels = ((outputs[:, 0].float() + 1) * 32767.5).clamp(0, 65535).round()
        return levels.to(torch.uint16)

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return colour_depth(pixels)

    def write(self, pixels: np.ndarray, picture: str = "png") -> tuple[bytes, str]:
        return encode_depth(pixels), ".png"

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        found, truth = outputs.astype(np.float64) / 65535, pixels.astype(np.float64) / 65535
        errors, far = np.abs(found - truth), truth >= 0.01
        return {"relative": (errors[far] / truth[far]).sum(), "far": far.sum(),
                "squares": np.square(errors).sum(), "pixels": np.array(truth.size)}

    def figures(self, sums: Sums) -> dict[str, float]:
        return {"abs_rel": float(sums["relative"] / max(1, sums["far"])),
                "rmse": float(np.sqrt(sums["squares"] / max(1, sums["pixels"])))}


@dataclass(frozen=True, kw_only=True)
class Segmentation(Modality):
    """Maps of class ids: pixels are the ids; inputs one-hot, outputs logits, one channel a class.

    Pixels of ``ignore_id`` are all zeros in the input and count neither in the loss nor in the
    score: ``miou``, mean over the classes that occur of intersection over union, and
    ``pixel_accuracy``.

    Attributes:
        num_classes: ids run from 0 to ``num_classes - 1``.
        ignore_id: id of pixels without a class; may lie inside or outside that range.
        loss: ``cross_entropy`` over classes, or ``bce``, binary cross-entropy of each channel.
    """
    num_classes: int
    ignore_id: int | None = None
    loss: str = "cross_entropy"
    name: ClassVar[str] = "segmentation"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".tif", ".tiff", ".bmp")
    resampling: ClassVar[str] = "nearest"

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= 1 << 16:
            raise ValueError(f"num_classes must be in [1, 65536], got {self.num_classes}")
        if self.ignore_id is not None and not 0 <= self.ignore_id < 1 << 16:
            raise ValueError(f"ignore_id must be in [0, 65536), got {self.ignore_id}")
        if self.loss not in ("cross_entropy", "bce"):
            raise ValueError(f"loss must be cross_entropy or bce, got {self.loss!r}")

    @property
    def in_channels(self) -> int:
        return self.num_classes

    @property
    def pixel_dtype(self) -> np.dtype[Any]:
        largest = max(self.num_classes - 1, -1 if self.ignore_id is None else self.ignore_id)
        return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16)

    def read(self, payload: bytes, name: str) -> np.ndarray:
        labels = decode_labels(payload)
        self._check_labels(labels)
        return labels

    def resample(self, raw: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
        return resize(raw, crop, size, "nearest").astype(self.pixel_dtype)

    def to_inputs(self, pixels: "Tensor") -> "Tensor":
        labels, valid = self._labels(pixels)
        inputs = valid.new_zeros(len(labels), self.num_classes, *labels.shape[1:]).float()
        return inputs.scatter_(1, labels[:, None], valid[:, None].float())

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        import torch
        return outputs.argmax(1).to(torch.from_numpy(np.empty(0, self.pixel_dtype)).dtype)

    def reconstruction_loss(self, outputs: "Tensor", pixels: "Tensor") -> "Tensor":
        """Cross-entropy or binary cross-entropy, mean over the pixels that have a class."""
        from torch.nn import functional
        labels, valid = self._labels(pixels)
        if self.loss == "bce":
            each = functional.binary_cross_entropy_with_logits(
                outputs.float(), self.to_inputs(pixels), reduction="none").mean(1)
        else:
            each = functional.cross_entropy(outputs.float(), labels, reduction="none")
        return (each * valid).sum() / valid.sum().clamp(min=1)

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return colour_labels(pixels)

    def write(self, pixels: np.ndarray, picture: str = "png") -> tuple[bytes, str]:
        return encode_labels(pixels), ".png"

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        found, truth = outputs.reshape(-1).astype(np.int64), pixels.reshape(-1).astype(np.int64)
        if self.ignore_id is not None:
            found, truth = found[truth != self.ignore_id], truth[truth != self.ignore_id]
        num = self.num_classes
        return {"true": np.bincount(truth, minlength=num),
                "found": np.bincount(found, minlength=num),
                "both": np.bincount(truth[truth == found], minlength=num)}

    def figures(self, sums: Sums) -> dict[str, float]:
        union = sums["true"] + sums["found"] - sums["both"]
        shares = sums["both"][union > 0] / union[union > 0]
        return {"miou": float(shares.mean()) if len(shares) else 0.0,
                "pixel_accuracy": float(sums["both"].sum() / max(1, sums["true"].sum()))}

    def check_pixels(self, pixels: np.ndarray) -> None:
        super().check_pixels(pixels)
        self._check_labels(pixels)

    def _check_labels(self, labels: np.ndarray) -> None:
        beyond = labels >= self.num_classes
        if self.ignore_id is not None:
            beyond &= labels != self.ignore_id
        if beyond.any():
            ids = np.unique(labels[beyond])
            raise LabelOutOfRange(
                f"class ids {', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''} at "
                f"{int(beyond.sum())} pixels; num_classes={self.num_classes} takes 0 to "
                f"{self.num_classes - 1}"
                + ("; set ignore_id for pixels without a class" if self.ignore_id is None
                   else f" and ignore_id={self.ignore_id}"))

    def _labels(self, pixels: "Tensor") -> "tuple[Tensor, Tensor]":
        """Class ids as int64 with 0 for ignored pixels, and which pixels have a class."""
        labels = pixels.long()
        valid = labels >= 0 if self.ignore_id is None else labels != self.ignore_id
        return labels * valid, valid


def add_sums(parts: Iterable[Sums]) -> Sums:
    """Sums of several batches as one."""
    total: Sums = {}
    for part in parts:
        total = {name: value + total.get(name, 0) for name, value in part.items()}
    return total


def fit_together(modalities: Mapping[str, Modality], raws: Mapping[str, np.ndarray], crop: Crop,
                 sizes: Mapping[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Cut the same crop out of an image and its maps.

    Args:
        raws: per modality what its `Modality.read` returned.
        sizes: per modality the target h and w in pixels.
    Raises:
        SizeMismatch: the maps and the image have different sizes.
    """
    (first, reference), *others = raws.items()
    for name, raw in others:
        if raw.shape[:2] != reference.shape[:2]:
            raise SizeMismatch(
                f"the {name} map is {raw.shape[1]} x {raw.shape[0]} pixels, its {first} "
                f"{reference.shape[1]} x {reference.shape[0]}; they must be equal to be cropped "
                "alike")
    return {name: modality.fit(raws[name], crop, sizes[name])
            for name, modality in modalities.items()}


def modality_to_dict(modality: Modality) -> dict[str, Any]:
    """A modality's name and settings as JSON values."""
    return {"name": modality.name, **configs.to_dict(modality)}


def modality_from_dict(settings: Mapping[str, Any]) -> Modality:
    """The modality that `modality_to_dict` described.

    Args:
        settings: for example ``{"name": "segmentation", "num_classes": 12}``.

    Raises:
        ValueError: the name or a setting is unknown, missing or out of range.
    """
    name = settings.get("name")
    if name not in MODALITIES:
        raise ValueError(f"unknown modality {name!r}; known are {', '.join(MODALITIES)}")
    rest = {key: value for key, value in settings.items() if key != "name"}
    return configs.from_dict(MODALITIES[name], rest, f"{name}.")


MODALITIES: dict[str, type[Modality]] = {cls.name: cls for cls in (RGB, Depth, Segmentation)}
"""Every modality by name."""

__all__ = ["MODALITIES", "PICTURE_SUFFIXES", "RGB", "Depth", "LabelOutOfRange", "Modality",
           "Segmentation", "SizeMismatch", "Sums", "UnreadableImage", "add_sums", "fit_together",
           "modality_from_dict", "modality_to_dict"]
