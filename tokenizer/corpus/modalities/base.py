"""What every modality does: the abstract class, and what several of them share.

    file --read--> raw --fit--> pixels --to_inputs--> model --to_pixels--> pixels --write--> file

Reading and fitting need numpy alone; torch is used by the methods that take tensors.

Letters: B images, C channels, H and W the original's rows and columns, h and w those of the crop.
"""
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokenizer import configs
from tokenizer.corpus.images import Crop

if TYPE_CHECKING:
    from torch import Tensor

QUALITY = 95
"""Of JPEG and WebP files, unless asked otherwise."""

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
        computed_from: the modality whose files it is computed from, if it has none of its own; its
            `read` returns what that modality's does.
        colours_vary: whether other light or another camera could have given other levels, so that
            training may change them.
        quality: which one of its `figures` tells how good the reconstruction of one item is.
        lower_is_better: whether that figure is an error.
    """
    name: ClassVar[str]
    quality: ClassVar[str]
    lower_is_better: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]]
    resampling: ClassVar[str]
    computed_from: ClassVar[str | None] = None
    colours_vary: ClassVar[bool] = False

    @classmethod
    def file_modality(cls) -> str:
        """Name of the modality whose files hold it: its own unless it is computed."""
        return cls.computed_from or cls.name

    @property
    def reading(self) -> str:
        """What `read` makes of a file, in words: modalities for which it is equal may share it."""
        return self.file_modality()

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
        """Crop and resample what `read` returned to ``(h, w[, 3])``, in the units of ``raw``.

        A flipped crop is mirrored in this modality's own way.
        """

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

    def centred(self, inputs: "Tensor") -> "Tensor":
        """Model inputs or outputs rescaled so that pixels span [-1, 1], as feature losses expect.

        Class logits and others without such a span stay as they are.
        """
        return inputs

    def reconstruction_loss(self, outputs: "Tensor", pixels: "Tensor",
                            kind: str = "l1") -> "Tensor":
        """Mean loss of outputs ``(B, C, h, w)`` against the pixels they should be; float32 scalar.

        Args:
            kind: ``l1``, absolute difference to `to_inputs`, or ``l2``, its square; a modality
                whose outputs are no levels has its own loss instead.
        """
        difference = outputs.float() - self.to_inputs(pixels)
        return difference.abs().mean() if kind == "l1" else difference.square().mean()

    @abstractmethod
    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels ``(B, h, w[, 3])`` as pictures for people, ``(B, h, w, 3)`` uint8."""

    @abstractmethod
    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
        """One item's pixels ``(h, w[, 3])`` as a file and its suffix.

        Args:
            picture: a name of `PICTURE_SUFFIXES`; maps are always PNG, which is exact.
            quality: of formats that have one, 1 to 100.
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
