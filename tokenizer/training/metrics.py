"""Figures of a tokenizer: codebook usage over recent batches, and scores on held-out pixels.

Scores are taken on integer pixels, after outputs were clipped and rounded, as the codec does.

Letters: B images, h and w sides of the crop in pixels, D codes a cell, K codebook size.
"""
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenizer.corpus.modalities import Modality, Sums, add_sums
from tokenizer.devices import full_float32
from tokenizer.schema import CodeUsage, count_codes
from tokenizer.vqgan.model import VQGAN

RECENT_BATCHES = 50
"""Training batches over which codebook usage is counted."""


class RecentCodes:
    """The codes of the latest training batches.

    Args:
        codebook_size: K.
        depth: D.
    """

    def __init__(self, codebook_size: int, depth: int = 1) -> None:
        self.codebook_size, self.depth = codebook_size, depth
        self._batches: deque[Tensor] = deque(maxlen=RECENT_BATCHES)

    def add(self, codes: Tensor) -> None:
        """Count the codes of one more batch; forget the oldest.

        Args:
            codes: ``(B[, D], h, w)``, int64 in ``[0, K)``.
        """
        self._batches.append(codes.detach().to(torch.int32).cpu())

    def usage(self) -> CodeUsage:
        """How much of the codebook they use."""
        counts = np.zeros((self.depth, self.codebook_size), np.int64)
        for codes in self._batches:
            counts += count_codes(codes.numpy(), self.codebook_size, self.depth)
        return CodeUsage.of(counts)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What resuming needs."""
        return {"batches": list(self._batches)}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Continue from what `state_dict` returned."""
        self._batches = deque(state["batches"], maxlen=RECENT_BATCHES)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A tokenizer's figures on some images.

    Attributes:
        num_images: how many were measured.
        loss: mean reconstruction loss of an image, of the kind that training has.
        scores: the modality's scores by name, such as ``psnr`` in dB.
        usage: codebook entries used at least once over these images, and perplexity; with several
            codes a cell, the least of their codebooks.
        used_share: ``usage.used`` as a share of K.
        most_share: the share of K that so few codes can use at most, of one codebook.
    """
    num_images: int
    loss: float
    scores: dict[str, float]
    usage: CodeUsage
    used_share: float
    most_share: float = 1.0

    def scalars(self) -> dict[str, float]:
        """All figures by name, for a journal."""
        return {"loss": self.loss, **self.scores, "codes_used": self.used_share,
                "perplexity": self.usage.perplexity}


class Tally:
    """A modality's scores and the codebook usage of images that come in batches.

    Training and `tokenizer.evaluation` both count with it, so their figures mean the same.

    Args:
        modality: whose scores are taken.
        codebook_size: K.
        depth: D.

    Attributes:
        num_images: images counted so far.
        counts: how often each code occurred, int64 ``(D, K)``.
    """

    def __init__(self, modality: Modality, codebook_size: int, depth: int = 1) -> None:
        self.modality = modality
        self.num_images = 0
        self.counts = np.zeros((depth, codebook_size), np.int64)
        self._sums: Sums = {}

    def add(self, found: np.ndarray, pixels: np.ndarray, codes: np.ndarray) -> None:
        """Count one more batch.

        Args:
            found: reconstructed pixels ``(B, h, w[, 3])`` of the modality's type.
            pixels: the originals, likewise.
            codes: their codes ``(B[, D], ...)``, integers in ``[0, K)``.
        """
        self._sums = add_sums((self._sums, self.modality.sums(found, pixels)))
        depth, size = self.counts.shape
        self.counts += count_codes(codes, size, depth)
        self.num_images += len(pixels)

    def scores(self) -> dict[str, float]:
        """The modality's scores over all images counted, by name."""
        return self.modality.figures(self._sums)

    def usage(self) -> CodeUsage:
        """Codebook entries used at least once, and perplexity."""
        return CodeUsage.of(self.counts)


def describe_scores(scores: Mapping[str, float]) -> str:
    """A modality's scores for people, with units."""
    return ", ".join(f"PSNR {value:.2f} dB" if name == "psnr" else f"{name} {value:.3f}"
                     for name, value in scores.items())


@torch.inference_mode()
def evaluate(model: VQGAN, modality: Modality, batches: Iterable[np.ndarray],
             reconstruction: str = "l1") -> Evaluation:
    """Measure reconstructions, in full float32.

    Args:
        model: in evaluation mode, float32, on any device.
        batches: pixels ``(B, h, w[, 3])`` of the modality's type.
        reconstruction: kind of the loss, as `Modality.reconstruction_loss` takes it.
    Raises:
        ValueError: there is not one image.
    """
    quantizer = model.config.quantizer
    loss, tally = 0.0, Tally(modality, quantizer.codebook_size, quantizer.depth)
    for batch in batches:
        pixels = torch.from_numpy(batch).to(model.last_layer.device)
        with full_float32():
            outputs, quantized = model(modality.to_inputs(pixels))
        tally.add(modality.to_pixels(outputs).cpu().numpy(), batch, quantized.codes.cpu().numpy())
        loss += len(batch) * modality.reconstruction_loss(outputs, pixels,
                                                           reconstruction).item()
    if not tally.num_images:
        raise ValueError("none of the held-out images can be read; hold out others, or mend them")
    usage = tally.usage()
    return Evaluation(num_images=tally.num_images, loss=loss / tally.num_images,
                      scores=tally.scores(), usage=usage,
                      used_share=usage.used / quantizer.codebook_size,
                      most_share=min(1.0, tally.num_images * math.prod(model.config.grid)
                                     / quantizer.codebook_size))


@torch.inference_mode()
def reconstruct(model: VQGAN, modality: Modality, pixels: np.ndarray) -> np.ndarray:
    """Pixels ``(B, h, w[, 3])`` encoded and decoded by ``model``, as the codec would."""
    inputs = modality.to_inputs(torch.from_numpy(pixels).to(model.last_layer.device))
    with full_float32():
        outputs = model(inputs)[0]
    return modality.to_pixels(outputs).cpu().numpy()
