"""A quantizer that teaches all entries at each step, through the softmax of their products.

Letters: B images, C channels of a latent, H and W the latent grid, K codebook size, N = B * H * W.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.vqgan.quantizers.base import (
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
)
from tokenizer.vqgan.quantizers.entropy import entropy_of_use


class IBQQuantizer(Quantizer, kind="ibq"):
    """Index backpropagation: the code is the entry with the greatest dot product with the latent.

    In training the softmax over all N x K products carries the gradient, so every entry learns.
    Terms of the loss: latents and entries to each other, with and without that softmax, and the
    entropy of a latent's code minus that of their average use, in nats, by a sharper softmax.

    Entries start as far apart as latents are: from the tiny ones that other kinds start with, all
    products are alike, and a few entries take everything.

    Attributes:
        embedding: its ``weight`` is the codebook ``(K, C)``.

    Source: Shi et al. 2024, arXiv:2412.02692, section 3.2.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.codebook_size, config.code_dim)
        nn.init.normal_(self.embedding.weight)

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        points = latents.permute(0, 2, 3, 1)
        codebook = self.embedding.weight
        logits = points @ codebook.T
        codes = logits.argmax(-1)
        entries = F.embedding(codes, codebook)
        if not self.training:
            return QuantizerOutput(latents=entries.permute(0, 3, 1, 2), codes=codes,
                                   losses=self._losses(points, entries, entries, logits))
        # The entry itself, with the gradient that its softmax weight would have.
        mixture = logits.softmax(-1) @ codebook.detach()
        quantized = entries + mixture - mixture.detach()
        return QuantizerOutput(latents=quantized.permute(0, 3, 1, 2), codes=codes,
                               losses=self._losses(points, quantized, entries, logits))

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        points = latents.permute(0, 2, 3, 1)
        return _greatest_product(points.flatten(0, 2),
                                 self.embedding.weight).view(points.shape[:3])

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        return self.embedding(codes).permute(0, 3, 1, 2)

    def _losses(self, points: Tensor, quantized: Tensor, entries: Tensor,
                logits: Tensor) -> dict[str, Tensor]:
        losses = {"codebook": F.mse_loss(quantized, points),
                  "commitment": F.mse_loss(points, entries.detach()),
                  "entries": self.config.beta * F.mse_loss(entries, points.detach())}
        if self.config.entropy_weight:
            sharpened = logits.flatten(0, 2) / self.config.entropy_temperature
            log_chances = sharpened.log_softmax(-1)
            of_each = -(log_chances.exp() * log_chances).sum(-1).mean()
            of_use = entropy_of_use(log_chances.exp(), joined=self.training)
            losses["entropy"] = self.config.entropy_weight * (of_each - of_use)
        return losses


def _greatest_product(points: Tensor, codebook: Tensor, num_points: int = 256) -> Tensor:
    """Index of the entry ``(K, C)`` with the greatest product with each point ``(N, C)``."""
    return torch.cat([(piece @ codebook.T).argmax(1) for piece in points.split(num_points)])
