"""Codes of `drawn_codes` as pictures: decoders, and an estimator that reads maps off them."""
import numpy as np

from prior.model import Prior
from tokenizer.corpus.modalities import RGB, Segmentation
from tokenizer.schema import CodeSpec

SIDE, STEP = 4, 30
"""Pixels a side of a cell, and levels between two codes of an image."""


class Cells:
    """Decodes each code to a square of one colour."""

    def __init__(self, spec: CodeSpec) -> None:
        self.spec = spec
        self.modality = RGB() if spec.modality == "image" else Segmentation(num_classes=4)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        pixels = codes.repeat(SIDE, 1).repeat(SIDE, 2).astype(np.uint8)
        return pixels if self.spec.modality != "image" else np.stack([pixels * STEP] * 3, -1)


class Reading:
    """Reads the map of `drawn_codes.draw_codes` off a picture: half the code of its cell."""
    words = "drawn:reading"

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return (pictures[..., 0] // STEP // 2).astype(np.uint8)


def decoders(prior: Prior) -> dict[str, Cells]:
    return {name: Cells(prior.config.spec[name]) for name in prior.config.spec.modalities}
