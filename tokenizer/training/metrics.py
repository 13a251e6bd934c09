"""Figures of a tokenizer: codebook usage over recent batches, and scores on held-out pixels.

Scores are taken on integer pixels, after outputs were clipped and rounded, as the codec does.

Letters: B images, h and w sides of the crop in pixels, K codebook size.
"""
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenizer.corpus.modalities import Modality, Sums, add_sums
from tokenizer.schema import CodeUsage
from tokenizer.vqgan.model import VQGAN

RECENT_BATCHES = 50
"""Training batches over which codebook usage is counted."""


class RecentCodes:
    """The codes of the latest training batches.

    Args:
        codebook_size: K.
    """

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        self._batches: deque[Tensor] = deque(maxlen=RECENT_BATCHES)

    def add(self, codes: Tensor) -> None:
        """Count the codes of one more batch, any shape, int64 in ``[0, K)``; forget the oldest."""
        self._batches.append(codes.detach().flatten().to(torch.int32).cpu())

    def usage(self) -> CodeUsage:
        """How much of the codebook they use."""
        counts = np.zeros(self.codebook_size, np.int64)
        for codes in self._batches:
            counts += np.bincount(codes.numpy(), minlength=self.codebook_size)
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
        loss: mean reconstruction loss of an image, in the unit of the modality.
        scores: the modality's scores by name, such as ``psnr`` in dB.
        usage: codebook entries used at least once over these images, and perplexity.
        used_share: ``usage.used`` as a share of K.
    """
    num_images: int
    loss: float
    scores: dict[str, float]
    usage: CodeUsage
    used_share: float

    def scalars(self) -> dict[str, float]:
        """All figures by name, for a journal."""
        return {"loss": self.loss, **self.scores, "codes_used": self.used_share,
                "perplexity": self.usage.perplexity}


def describe_scores(scores: Mapping[str, float]) -> str:
    """A modality's scores for people, with units."""
    return ", ".join(f"PSNR {value:.2f} dB" if name == "psnr" else f"{name} {value:.3f}"
                     for name, value in scores.items())


@torch.inference_mode()
def evaluate(model: VQGAN, modality: Modality, batches: Iterable[np.ndarray]) -> Evaluation:
    """Measure reconstructions.

    Args:
        model: in evaluation mode, float32, on any device.
        batches: pixels ``(B, h, w[, 3])`` of the modality's type.
    Raises:
        ValueError: there is not one image.
    """
    num_images, loss = 0, 0.0
    sums: Sums = {}
    counts = np.zeros(model.config.quantizer.codebook_size, np.int64)
    for batch in batches:
        pixels = torch.from_numpy(batch).to(model.last_layer.device)
        outputs, quantized = model(modality.to_inputs(pixels))
        found = modality.to_pixels(outputs).cpu().numpy()
        sums = add_sums((sums, modality.sums(found, batch)))
        loss += len(batch) * modality.reconstruction_loss(outputs, pixels).item()
        counts += np.bincount(quantized.codes.flatten().cpu().numpy(), minlength=len(counts))
        num_images += len(batch)
    if not num_images:
        raise ValueError("none of the held-out images can be read; hold out others, or mend them")
    usage = CodeUsage.of(counts)
    return Evaluation(num_images=num_images, loss=loss / num_images, scores=modality.figures(sums),
                      usage=usage, used_share=usage.used / len(counts))


@torch.inference_mode()
def reconstruct(model: VQGAN, modality: Modality, pixels: np.ndarray) -> np.ndarray:
    """Pixels ``(B, h, w[, 3])`` encoded and decoded by ``model``, as the codec would."""
    inputs = modality.to_inputs(torch.from_numpy(pixels).to(model.last_layer.device))
    return modality.to_pixels(model(inputs)[0]).cpu().numpy()
