"""A quantizer that learns to choose codes by a noisy softmax, and chooses without noise afterwards.

Letters: B images, C channels of a latent, H and W the latent grid, K codebook size.
"""
import math

import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.vqgan.quantizers.base import (
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
)


class GumbelQuantizer(Quantizer, kind="gumbel"):
    """Logits of all codes from each latent; the code is the greatest one's index.

    In training, Gumbel noise is added and the gradient is that of a softmax, whose temperature
    falls on a cosine over the budget. Elsewhere nothing is drawn, so that codes are repeatable.
    Parameters are named as in the published VQGAN.

    Attributes:
        proj: 1x1 convolution, latents to K logits.
        embed: its ``weight`` holds the latents ``(K, C)`` that the decoder gets.

    Source: Jang et al. 2017, arXiv:1611.01144; Ramesh et al. 2021, arXiv:2102.12092, section 2.1.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.proj = nn.Conv2d(config.code_dim, config.codebook_size, 1)
        self.embed = nn.Embedding(config.codebook_size, config.code_dim)

    @property
    def temperature(self) -> float:
        """Of the softmax, at the present share of the budget."""
        start, end = self.config.temperatures
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        logits = self._logits(latents)
        codes = logits.argmax(-1)
        chosen = F.one_hot(codes, self.config.codebook_size).to(logits.dtype)
        if self.training:
            chosen = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
            codes = chosen.argmax(-1)
        quantized = chosen @ self.embed.weight
        return QuantizerOutput(latents=quantized.permute(0, 3, 1, 2), codes=codes,
                               losses={"divergence": self._divergence(logits)})

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        return self._logits(latents).argmax(-1)

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        return self.embed(codes).permute(0, 3, 1, 2)

    def _logits(self, latents: Tensor) -> Tensor:
        """``(B, H, W, K)`` float32."""
        logits: Tensor = self.proj(latents)
        return logits.permute(0, 2, 3, 1)

    def _divergence(self, logits: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence of the softmaxes from equal chances, in nats."""
        log_chances = F.log_softmax(logits, -1)
        divergence = (log_chances.exp() * (log_chances + math.log(logits.shape[-1]))).sum(-1)
        return self.config.kl_weight * divergence.mean()
