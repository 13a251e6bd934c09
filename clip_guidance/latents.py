"""Latents that a quantizer can have, and the codes nearest to them.

Guidance moves latents freely and decodes the nearest codes, so all kinds of quantizer are treated
alike: what counts are the vectors that the decoder gets, not how an encoder's latents are assigned
to them. Kinds without a codebook have the corners or grid points of theirs as entries.

Letters: B images, C channels of a latent, D codes a cell, h and w the latent grid, K codebook size.
"""
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizer.vqgan.quantizers import Quantizer
from tokenizer.vqgan.quantizers.residual import ResidualQuantizer
from tokenizer.vqgan.quantizers.search import nearest_codes

MAX_ENTRIES = 1 << 18
"""The nearest of more entries is not searched for at every step."""


class LatentSpace:
    """The latents of one quantizer, on its device.

    Attributes:
        low, high: ``(C,)`` float32, least and greatest value of each channel over all entries; of
            several codes a cell, over all sums.
        scale: ``(C,)`` float32, standard deviation of each channel over them, more than 0.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        if quantizer.config.codebook_size > MAX_ENTRIES:
            raise ValueError(f"the tokenizer has {quantizer.config.codebook_size} codes "
                             f"({quantizer.config.kind}); guidance searches at most {MAX_ENTRIES}")
        self._quantizer = quantizer
        self._is_residual = isinstance(quantizer, ResidualQuantizer)
        self._codebooks = [_entries(step) for step in _steps(quantizer)]
        self.low = torch.stack([entries.amin(0) for entries in self._codebooks]).sum(0)
        self.high = torch.stack([entries.amax(0) for entries in self._codebooks]).sum(0)
        variances = torch.stack([entries.var(0, correction=0) for entries in self._codebooks])
        self.scale = variances.sum(0).sqrt().clamp(min=1e-8)

    def codes(self, latents: Tensor) -> Tensor:
        """The nearest codes ``(B[, D], h, w)`` int64 of latents ``(B, C, h, w)`` float32.

        Of several codes a cell each is the nearest to what the ones before it left over.
        """
        if self._is_residual:
            return self._quantizer.encode(latents)
        points = latents.permute(0, 2, 3, 1)
        return nearest_codes(points.flatten(0, 2), self._codebooks[0]).view(points.shape[:3])

    def latents(self, codes: Tensor) -> Tensor:
        """What the decoder gets for codes: ``(B, C, h, w)`` float32."""
        return self._quantizer.codes_to_latents(codes)

    def clamp_(self, latents: Tensor) -> None:
        """Bring latents ``(..., C, h, w)`` back into the range of their channels, in place."""
        torch.minimum(latents, self.high[:, None, None], out=latents)
        torch.maximum(latents, self.low[:, None, None], out=latents)


def _steps(quantizer: Quantizer) -> Sequence[Quantizer]:
    """The quantizers that each give one of the codes of a cell."""
    if not isinstance(quantizer, ResidualQuantizer):
        return [quantizer]
    return [step for step in quantizer.steps if isinstance(step, Quantizer)]


@torch.no_grad()
def _entries(quantizer: Quantizer) -> Tensor:
    """All vectors that the decoder may get for one code, ``(K, C)`` float32."""
    anything = next(itertools.chain(quantizer.parameters(), quantizer.buffers()))
    codes = torch.arange(quantizer.config.codebook_size, device=anything.device)
    return quantizer.codes_to_latents(codes[None, None])[0, :, 0].T.contiguous()
