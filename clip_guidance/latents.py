"""Latents that a quantizer can have, and the codes nearest to them.

Guidance moves latents freely and decodes the nearest codes, so all kinds of quantizer are treated
alike: what counts are the vectors that the decoder gets, not how an encoder's latents are assigned
to them. Kinds without a codebook have the corners or grid points of theirs as entries.

Letters: B images, C channels of a latent, D codes a cell, h and w the latent grid, K codebook size.
"""
import itertools
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from tokenizer.vqgan.quantizers import Quantizer
from tokenizer.vqgan.quantizers.residual import ResidualQuantizer
from tokenizer.vqgan.quantizers.search import nearest_codes, two_distances

MAX_ENTRIES = 1 << 18
"""The nearest of more entries is not searched for at every step."""

NUM_MEASURED = 1024
"""Entries whose distance to their nearest neighbour is measured."""


CROWDED = 1e-3
"""Entries are crowded whose squared distance to the nearest other is less than this share of what
it would be if all lay evenly spread, unless all are."""


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

    def ascent(self, latents: Tensor, codes: Tensor, gains: Tensor) -> Tensor:
        """The gradient, by latents z, of the gain g that is expected of the codes near them.

        With the shares q(k) = softmax(-|z - e(k)|^2 / t) of the entries e(k), t the typical squared
        distance between neighbours, the expected gain is sum_k q(k) g(k), and its gradient

            2 / t * sum_k q(k) (g(k) - sum_l q(l) g(l)) e(k).

        Args:
            latents: ``(B, C, h, w)`` float32.
            codes: ``(B[, D], h, w)`` int64, the nearest; of several codes a cell each is chosen for
                what the ones before it left over, which is taken as given.
            gains: ``(B, D, h, w, K)`` float32.
        Returns:
            ``(B, C, h, w)`` float32.
        """
        points, total = latents.permute(0, 2, 3, 1), torch.zeros_like(latents)
        chosen = codes.view(len(codes), -1, *codes.shape[-2:])
        for step, (entries, spacing) in enumerate(zip(self._codebooks, self._spacings,
                                                      strict=True)):
            # |z - e|^2 without its |z|^2 term, which is the same for every entry.
            shares = ((2 * points @ entries.T - entries.square().sum(1)) / spacing).softmax(-1)
            gain = gains[:, step]
            shares *= gain - (shares * gain).sum(-1, keepdim=True)
            total += (2 / spacing * shares @ entries).permute(0, 3, 1, 2)
            points = points - entries[chosen[:, step]]
        return total

    @cached_property
    def _spacings(self) -> list[float]:
        """Of each codebook the median squared distance between an entry and its nearest other.

        `CROWDED` entries do not count: those that training left unused, often most of a codebook,
        lie all but on one spot.
        """
        return [_spacing(entries) for entries in self._codebooks]

    def clamp_(self, latents: Tensor) -> None:
        """Bring latents ``(..., C, h, w)`` back into the range of their channels, in place."""
        torch.minimum(latents, self.high[:, None, None], out=latents)
        torch.maximum(latents, self.low[:, None, None], out=latents)


def _spacing(entries: Tensor) -> float:
    """See `LatentSpace._spacings`; more than 0."""
    chosen = torch.arange(0, len(entries), -(-len(entries) // NUM_MEASURED), device=entries.device)
    squares = two_distances(entries[chosen], entries, chosen)[:, 1].square()
    even = entries.var(0, correction=0).sum() * len(entries) ** (-2 / entries.shape[1])
    apart = squares[squares > CROWDED * even]
    return max(float((apart if len(apart) else squares).median()), 1e-12)


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
