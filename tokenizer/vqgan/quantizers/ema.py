"""A codebook whose entries are moving averages of the latents that chose them.

Letters: C channels of a latent, K codebook size.
"""
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.vqgan.quantizers.base import MovedRows, QuantizerConfig
from tokenizer.vqgan.quantizers.codebook import ClassicQuantizer
from tokenizer.vqgan.quantizers.ranks import sum_of_all

SMOOTHING = 1e-5
"""Added to every count, so that an entry without latents is no division by zero."""


class EMAQuantizer(ClassicQuantizer, kind="ema"):
    """Nearest entry by Euclidean distance; entries are averaged instead of taught by gradients.

    Attributes:
        cluster_size: ``(K,)`` float32, averaged number of latents of a batch that chose an entry.
        cluster_sum: ``(K, C)`` float32, averaged sum of these latents.

    Source: van den Oord et al. 2017, arXiv:1711.00937, appendix A.1.
    """
    training_notes: ClassVar[tuple[str, ...]] = (*ClassicQuantizer.training_notes,
                                                 "cluster_size", "cluster_sum")
    cluster_size: Tensor
    cluster_sum: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.ones(config.codebook_size))
        self.register_buffer("cluster_sum", self.embedding.weight.detach().clone())
        self._counts: Tensor | None = None
        self._sums: Tensor | None = None

    def losses(self, points: Tensor, entries: Tensor) -> dict[str, Tensor]:
        return {"commitment": self.config.beta * F.mse_loss(points, entries)}

    def note(self, points: Tensor, codes: Tensor) -> None:
        super().note(points, codes)
        if self._counts is None or self._sums is None:
            self._counts = torch.zeros_like(self.cluster_size)
            self._sums = torch.zeros_like(self.cluster_sum)
        self._counts += torch.bincount(codes.flatten(), minlength=len(self._counts))
        self._sums.index_add_(0, codes.flatten(), points.flatten(0, 2))

    @torch.no_grad()
    def revive(self) -> MovedRows:
        """Average in the latents of the step over all processes, then move idle entries."""
        counts, sums = self._counts, self._sums
        if counts is not None and sums is not None:
            sum_of_all(counts)
            sum_of_all(sums)
            self.cluster_size.lerp_(counts, 1 - self.config.decay)
            self.cluster_sum.lerp_(sums, 1 - self.config.decay)
            sizes = self.cluster_size[:, None]
            # An entry keeps its place while hardly any latent speaks for another.
            averages = (self.cluster_sum + SMOOTHING * self.embedding.weight) / (sizes + SMOOTHING)
            self.embedding.weight.copy_(averages)
        return super().revive()

    def move(self, codes: Tensor, points: Tensor) -> None:
        super().move(codes, points)
        self.cluster_size[codes] = 1.0
        self.cluster_sum[codes] = points

    @torch.no_grad()
    def assume_trained(self) -> None:
        super().assume_trained()
        self.cluster_size.fill_(1.0)
        self.cluster_sum.copy_(self.embedding.weight)

    def discard(self) -> None:
        super().discard()
        self._counts = self._sums = None
