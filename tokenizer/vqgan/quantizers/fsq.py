"""A quantizer without a codebook: each channel is rounded to a few levels.

Letters: B images, C channels of a latent, H and W the latent grid, K product of the levels.
"""
import math

import torch
from torch import Tensor

from tokenizer.vqgan.quantizers.base import (
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
    straight_through,
)

MARGIN = 1e-3
"""How far bounded values reach beyond the outermost levels, so that these can be reached."""


class FSQQuantizer(Quantizer, kind="fsq"):
    """Finite scalar quantization: channel c takes one of L_c evenly spaced values in [-1, 1].

    The code is the number whose digits, from the first channel as the lowest, are the channels'
    level indices. There is nothing to learn, to revive or to commit to.

    Source: Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1; but for the bound,
    which there is 1 - 1e-3 times as wide as the levels, and `MARGIN` wider here; and for the shift
    of even numbers of levels, with ``tan`` there, and ``atanh`` here, so that 0 becomes 0.
    """
    num_levels: Tensor
    place_values: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        levels = torch.tensor(config.levels)
        place_values = torch.cat([levels.new_ones(1), levels.cumprod(0)[:-1]])
        self.register_buffer("num_levels", levels, persistent=False)
        self.register_buffer("place_values", place_values, persistent=False)

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        levels = config.levels
        if not levels or min(levels) < 3:
            raise ValueError("fsq needs levels, each at least 3, such as levels=8,8,4,4 for 1024 "
                             f"codes, got {levels}; for two levels a channel take kind lfq")
        if math.prod(levels) != config.codebook_size or len(levels) != config.code_dim:
            raise ValueError(
                f"levels {levels} make codebook_size {math.prod(levels)} and code_dim "
                f"{len(levels)}, got {config.codebook_size} and {config.code_dim}")

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        bounded = self._bound(latents)
        values = straight_through(bounded, bounded.round()) / self._half_widths
        return QuantizerOutput(latents=values.permute(0, 3, 1, 2),
                               codes=self._codes(bounded), losses={})

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        return self._codes(self._bound(latents))

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        indices = codes[..., None] // self.place_values % self.num_levels
        half_widths = self._half_widths.float()
        return ((indices - half_widths) / half_widths).permute(0, 3, 1, 2)

    @property
    def _half_widths(self) -> Tensor:
        """``(C,)`` int64: what is added to a rounded value to make it an index from 0."""
        return self.num_levels // 2

    def _bound(self, latents: Tensor) -> Tensor:
        """Latents ``(B, C, H, W)`` as ``(B, H, W, C)`` float32 that round to L_c integers."""
        points = latents.permute(0, 2, 3, 1)
        half = (self.num_levels - 1) / 2 + MARGIN
        offset = (self.num_levels % 2 == 0) * 0.5
        return torch.tanh(points + torch.atanh(offset / half)) * half - offset

    def _codes(self, bounded: Tensor) -> Tensor:
        indices = bounded.detach().round().long() + self._half_widths
        return (indices * self.place_values).sum(-1)
