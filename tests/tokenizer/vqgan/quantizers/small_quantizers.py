"""Small quantizers of every kind, for tests."""
import torch
from torch import Tensor

from tokenizer.vqgan.quantizers import Quantizer, QuantizerConfig, build_quantizer

SETTINGS: dict[str, dict] = {
    "classic": {}, "cosine": {}, "ema": {}, "gumbel": {}, "ibq": {}, "lfq": {},
    "fsq": {"codebook_size": 144, "levels": (4, 4, 3, 3)},
    "residual": {"depth": 3}}
"""What small quantizers need beside 16 codes of 4 channels, by kind."""


def small(kind: str = "classic", **changes: object) -> Quantizer:
    """A quantizer of this kind, the same each time, in training mode."""
    torch.manual_seed(0)
    settings: dict = {"codebook_size": 16, "code_dim": 4, **SETTINGS[kind], **changes}
    return build_quantizer(QuantizerConfig(kind=kind, **settings))


def latents_of(points: Tensor) -> Tensor:
    """Points ``(N, C)`` as latents ``(1, C, 1, N)``."""
    return points.T[None, :, None, :].contiguous()
