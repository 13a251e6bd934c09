"""A quantizer without a codebook: each channel gives one bit.

Letters: B images, C channels of a latent, H and W the latent grid, K = 2^C, N = B * H * W.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.vqgan.quantizers.base import (
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
    straight_through,
)
from tokenizer.vqgan.quantizers.entropy import entropy_of_use

GROUP_BITS = 9
"""Channels whose codes are counted together in the entropy of their average use."""


class LFQQuantizer(Quantizer, kind="lfq"):
    """Lookup-free quantization: a channel becomes 1 where it is above 0, else -1.

    The code's bits, from the lowest, are the channels. An entropy term makes each latent sure of
    its code and all codes equally used: ``entropy_weight`` times the mean entropy of a latent's
    code minus the entropy of the codes' average use, in nats. A latent's code is drawn, for this,
    from the softmax of minus its squared distance to all corners over ``entropy_temperature``. The
    chances of the channels are independent, so the first is a sum over channels; the second is
    taken in groups of `GROUP_BITS`.

    Source: Yu et al. 2023, arXiv:2310.05737, section 3.1, equations 3 to 5.
    """
    bit_values: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.register_buffer("bit_values", 1 << torch.arange(config.code_dim), persistent=False)

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        if config.codebook_size != 1 << config.code_dim:
            raise ValueError(f"lfq has 2^code_dim codes, got codebook_size {config.codebook_size} "
                             f"with code_dim {config.code_dim}")

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        points = latents.permute(0, 2, 3, 1)
        corners = torch.where(points > 0, 1.0, -1.0)
        losses = {"commitment": self.config.beta * F.mse_loss(points, corners)}
        if self.config.entropy_weight:
            losses["entropy"] = self.config.entropy_weight * self._entropy(points.flatten(0, 2))
        return QuantizerOutput(latents=straight_through(points, corners).permute(0, 3, 1, 2),
                               codes=self._codes(points), losses=losses)

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        return self._codes(latents.permute(0, 2, 3, 1))

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        bits = codes[..., None] // self.bit_values % 2
        return (bits * 2 - 1).float().permute(0, 3, 1, 2)

    def _codes(self, points: Tensor) -> Tensor:
        return ((points > 0) * self.bit_values).sum(-1)

    def _entropy(self, points: Tensor) -> Tensor:
        """Mean entropy of a latent's code minus that of the average use, points ``(N, C)``."""
        # -|z - 1|^2 + |z + 1|^2 = 4 z in each channel.
        margins = 4 / self.config.entropy_temperature * points
        log_chances = torch.stack([F.logsigmoid(-margins), F.logsigmoid(margins)], -1)
        of_each = -(log_chances.exp() * log_chances).sum((1, 2)).mean()
        of_use = points.new_zeros(())
        for group in log_chances.exp().split(GROUP_BITS, dim=1):
            of_use = of_use + entropy_of_use(joint_chances(group), joined=self.training)
        return of_each - of_use


def joint_chances(chances: Tensor) -> Tensor:
    """Chances of all combinations of independent bits.

    Args:
        chances: ``(N, C, 2)``, of 0 and of 1 in each channel.
    Returns:
        ``(N, 2^C)``; the first channel is the lowest bit.
    """
    joint = chances[:, 0]
    for channel in chances.unbind(1)[1:]:
        joint = (channel[:, :, None] * joint[:, None, :]).flatten(1)
    return joint
