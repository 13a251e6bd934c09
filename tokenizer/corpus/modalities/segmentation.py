"""Maps of class ids.

Letters: B images, K classes, H and W the original's rows and columns, h and w those of the crop.
"""
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokenizer.corpus.images import Crop, resize
from tokenizer.corpus.maps import decode_labels, encode_labels
from tokenizer.corpus.modalities.base import QUALITY, LabelOutOfRange, Modality, Sums
from tokenizer.pictures import colour_labels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Segmentation(Modality):
    """Maps of class ids: pixels are the ids; inputs one-hot, outputs logits, one channel a class.

    Files are grey or palette images (the indices count) of up to 16 bits. One-hot inputs and logits
    each take B x K x h x w numbers of 4 bytes: 67 MB an image with 256 classes at 256 px.

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
    quality: ClassVar[str] = "pixel_accuracy"
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
        import torch
        labels, valid = self._labels(pixels)
        inputs = torch.zeros(len(labels), self.num_classes, *labels.shape[1:],
                             dtype=torch.float32, device=labels.device)
        return inputs.scatter_(1, labels[:, None], valid[:, None].float())

    def to_pixels(self, outputs: "Tensor") -> "Tensor":
        import torch
        return outputs.argmax(1).to(torch.from_numpy(np.empty(0, self.pixel_dtype)).dtype)

    def reconstruction_loss(self, outputs: "Tensor", pixels: "Tensor",
                            kind: str = "l1") -> "Tensor":
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

    def write(self, pixels: np.ndarray, picture: str = "png",
              quality: int = QUALITY) -> tuple[bytes, str]:
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
