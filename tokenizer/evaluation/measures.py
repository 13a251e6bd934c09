"""Measures: figures over original and reconstructed pixels, beyond a modality's own scores.

A measure sees the pixels after outputs were clipped and rounded, batch by batch. To add one,
subclass `Measure` here and list it in `MEASURES`; evaluation, its table and its JSON find it there.

Letters: B images, h and w sides of the crop in pixels.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tokenizer.corpus.modalities import RGB, Modality, Normals, Segmentation
from tokenizer.devices import full_float32
from tokenizer.evaluation import frechet, inception, similarity
from tokenizer.evaluation.features import (
    ADVICE,
    PictureFeatures,
    arithmetic,
    hash_of,
    singular_caution,
)
from tokenizer.evaluation.figures import Figure, NotMeasured
from tokenizer.training.config import PerceptualConfig
from tokenizer.training.perceptual import LEAST_SIDE, load_perceptual

LPIPS_ADVICE = ("give --lpips-vgg16 (torchvision's vgg16-397923af.pth) and --lpips-linear (vgg.pth "
                "of LPIPS 0.1) as path, URL or hub id")


@dataclass(frozen=True, kw_only=True)
class PretrainedFiles:
    """Places of pretrained weights, as `tokenizer.weights` takes them; those not given are none.

    Attributes:
        lpips_vgg16: VGG16's ImageNet weights in torchvision's layout.
        lpips_linear: the LPIPS 0.1 linear layers for VGG16.
        inception: InceptionV3 in FID's layout.
    """
    lpips_vgg16: str | None = None
    lpips_linear: str | None = None
    inception: str | None = None

    def __post_init__(self) -> None:
        if (self.lpips_vgg16 is None) != (self.lpips_linear is None):
            raise ValueError(f"LPIPS needs two files, only one is given: {LPIPS_ADVICE}")


class Measure(ABC):
    """A figure over many images.

    Args:
        modality: of the pixels.
        size: h and w.
        files: pretrained weights, for measures that need them.
        device: where torch computes.
    Raises:
        NotMeasured: it does not apply to this modality or size, or its weights are not given.
        OSError, ValueError: weights were given and cannot be read.
    """
    name: ClassVar[str]

    @abstractmethod
    def __init__(self, modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                 device: torch.device) -> None: ...

    @abstractmethod
    def add(self, found: np.ndarray, pixels: np.ndarray) -> None:
        """Count in reconstructed and original pixels ``(B, h, w[, 3])`` of the modality's type."""

    @abstractmethod
    def figure(self) -> Figure:
        """The figure of all images so far, with the conditions that are its own.

        Raises:
            NotMeasured: there are too few.
        """


class _Mean(Measure):
    """A measure that is a mean over images."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, found: np.ndarray, pixels: np.ndarray) -> None:
        self._total += float(self.each(found, pixels).sum())
        self._count += len(pixels)

    @abstractmethod
    def each(self, found: np.ndarray, pixels: np.ndarray) -> Tensor:
        """The figure of each image, ``(B,)``."""

    @property
    def mean(self) -> float:
        """Over the images so far; not a number before the first."""
        return self._total / self._count if self._count else float("nan")


class StructuralSimilarity(_Mean):
    """SSIM of colour images."""
    name = "ssim"

    def __init__(self, modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                 device: torch.device) -> None:
        super().__init__()
        _require_colour(modality)
        _require_side(size, similarity.MIN_SIDE)

    def each(self, found: np.ndarray, pixels: np.ndarray) -> Tensor:
        return similarity.structural_similarity(_planes(found), _planes(pixels), 255.0)

    def figure(self) -> Figure:
        return Figure(value=self.mean, label="SSIM", conditions={
            "data_range": 255, "channels": "mean over red, green and blue",
            "window": "Gaussian, 11 x 11 pixels, deviation 1.5, inside the image",
            "constants": "K1 0.01, K2 0.03", "average": "over images"})


class MultiscaleSimilarity(_Mean):
    """MS-SSIM of colour images large enough for five scales."""
    name = "ms_ssim"

    def __init__(self, modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                 device: torch.device) -> None:
        super().__init__()
        _require_colour(modality)
        _require_side(size, similarity.MIN_SIDE_MULTISCALE)

    def each(self, found: np.ndarray, pixels: np.ndarray) -> Tensor:
        return similarity.multiscale_similarity(_planes(found), _planes(pixels), 255.0)

    def figure(self) -> Figure:
        return Figure(value=self.mean, label="MS-SSIM", conditions={
            "data_range": 255, "channels": "mean over red, green and blue at each scale",
            "window": "Gaussian, 11 x 11 pixels, deviation 1.5, inside the image",
            "scales": list(similarity.SCALE_WEIGHTS), "constants": "K1 0.01, K2 0.03",
            "average": "over images"})


class Lpips(_Mean):
    """LPIPS with VGG16 of colour images, and of maps of one channel as grey images."""
    name = "lpips"

    def __init__(self, modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                 device: torch.device) -> None:
        super().__init__()
        if isinstance(modality, Segmentation) or modality.out_channels not in (1, 3):
            raise NotMeasured(f"{modality.name} maps are no colour images")
        _require_side(size, LEAST_SIDE)
        if files.lpips_vgg16 is None or files.lpips_linear is None:
            raise NotMeasured(f"no weights: {LPIPS_ADVICE}")
        config = PerceptualConfig(weight=1.0, vgg16=files.lpips_vgg16, linear=files.lpips_linear)
        self._distance = load_perceptual(config, LPIPS_ADVICE).to(device)
        self._modality, self._device = modality, device
        self._hashes = [hash_of(files.lpips_vgg16), hash_of(files.lpips_linear)]

    def each(self, found: np.ndarray, pixels: np.ndarray) -> Tensor:
        pair = [self._modality.centred(self._modality.to_inputs(torch.from_numpy(images)))
                for images in (found, pixels)]
        with full_float32():
            return self._distance(*(images.to(self._device) for images in pair)).cpu()

    def figure(self) -> Figure:
        return Figure(value=self.mean, label="LPIPS", better="lower", conditions={
            "network": "VGG16, LPIPS 0.1", "inputs": "[-1, 1], from rounded pixels; one channel "
            "counts as three equal ones", "resize": "none", "average": "over images",
            "arithmetic": arithmetic(self._device),
            "weights_vgg16": self._hashes[0], "weights_linear": self._hashes[1]})


class ReconstructionFid(Measure):
    """rFID of colour images: the Frechet distance between originals and reconstructions."""
    name = "rfid"

    def __init__(self, modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                 device: torch.device) -> None:
        _require_colour(modality)
        if files.inception is None:
            raise NotMeasured(f"no weights: {ADVICE}")
        self._features = PictureFeatures(files.inception, device)
        self._found = frechet.FeatureStatistics(inception.NUM_FEATURES)
        self._true = frechet.FeatureStatistics(inception.NUM_FEATURES)

    def add(self, found: np.ndarray, pixels: np.ndarray) -> None:
        for images, statistics in ((found, self._found), (pixels, self._true)):
            statistics.add(self._features.of(images))

    def figure(self) -> Figure:
        count = self._true.count
        if count < 2:
            raise NotMeasured(f"a covariance needs at least 2 images, got {count}")
        conditions = {**self._features.conditions, "covariance": "over N - 1",
                      "reference": "the originals of these same images", **singular_caution(count)}
        return Figure(value=frechet.frechet_distance(self._found, self._true), label="rFID",
                      better="lower", conditions=conditions)


def build_measures(modality: Modality, size: tuple[int, int], files: PretrainedFiles,
                   device: torch.device) -> tuple[list[Measure], dict[str, str]]:
    """The measures that apply, and why the others do not, by name."""
    measures: list[Measure] = []
    left_out: dict[str, str] = {}
    for name, cls in MEASURES.items():
        try:
            measures.append(cls(modality, size, files, device))
        except NotMeasured as reason:
            left_out[name] = str(reason)
    return measures, left_out


def _planes(pixels: np.ndarray) -> Tensor:
    """Pixels ``(B, h, w, 3)`` as ``(B, 3, h, w)`` float64."""
    return torch.from_numpy(pixels.astype(np.float64)).permute(0, 3, 1, 2).contiguous()


def _require_colour(modality: Modality) -> None:
    if not isinstance(modality, RGB) or isinstance(modality, Normals):
        raise NotMeasured(f"{modality.name} maps are no colour images")


def _require_side(size: tuple[int, int], least: int) -> None:
    if min(size) < least:
        raise NotMeasured(f"needs sides of at least {least} px, the tokenizer has "
                          f"{size[0]} x {size[1]}")


MEASURES: dict[str, type[Measure]] = {cls.name: cls for cls in (
    StructuralSimilarity, MultiscaleSimilarity, Lpips, ReconstructionFid)}
"""Every measure by name."""
