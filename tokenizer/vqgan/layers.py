"""Layers of the autoencoder: norm, residual block, attention, halving and doubling of sides.

Names and shapes of the parameters are those of the published VQGAN, so that its checkpoints fit.

Letters: B images, C channels, H and W rows and columns of a feature map.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_GROUPS = 32
NORM_EPSILON = 1e-6


def num_norm_groups(channels: int) -> int:
    """Groups of the norm over ``channels``: 32 as published, fewer where 32 does not fit.

    With fewer than 64 channels, or a number that 32 does not divide, it is the largest divisor that
    leaves at least 4 channels a group, since norms over single channels lose an image's colour.
    """
    if channels >= 2 * NORM_GROUPS and channels % NORM_GROUPS == 0:
        return NORM_GROUPS
    most = max(1, min(NORM_GROUPS, channels // 4))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def norm(channels: int, num_groups: int = 0) -> nn.GroupNorm:
    """Group norm over ``channels``, with scale and shift; 0 groups take `num_norm_groups`."""
    return nn.GroupNorm(num_groups or num_norm_groups(channels), channels, eps=NORM_EPSILON)


def norm_swish(norm: nn.Module, x: Tensor) -> Tensor:
    """Swish of the norm of ``x``, in the norm's own memory where no gradient will need it."""
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


def add_to(hidden: Tensor, x: Tensor) -> Tensor:
    """``hidden + x``, in the memory of ``hidden`` where no gradient will need it."""
    return hidden + x if torch.is_grad_enabled() else hidden.add_(x)


class ResidualBlock(nn.Module):
    """Twice norm, swish and 3x3 convolution, added to the input.

    Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0,
                 num_groups: int = 0) -> None:
        super().__init__()
        self.norm1 = norm(in_channels, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, num_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(norm_swish(self.norm1, x))
        hidden = self.conv2(self.dropout(norm_swish(self.norm2, hidden)))
        return add_to(hidden, self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class UnbiasedResidualBlock(ResidualBlock):
    """The residual block of MaskGIT: no biases, and where channels change, no residual.

    There the shortcut is a 1x1 convolution of the block's own output, as published.

    Source: Chang et al. 2022, arXiv:2202.04200, its released tokenizer.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0,
                 num_groups: int = 0) -> None:
        super().__init__(in_channels, out_channels, dropout, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(out_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.conv1(norm_swish(self.norm1, x))
        hidden = self.conv2(self.dropout(norm_swish(self.norm2, hidden)))
        return hidden + (self.nin_shortcut(hidden) if hasattr(self, "nin_shortcut") else x)


class AttentionBlock(nn.Module):
    """One head of attention between all positions, added to the input; keeps the shape.

    Memory grows with the square of H * W on devices without a fused kernel.
    """

    def __init__(self, channels: int, num_groups: int = 0) -> None:
        super().__init__()
        self.norm = norm(channels, num_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        # (B, C, H, W) -> (B, 1 head, H * W, C)
        query, key, value = (layer(hidden).flatten(2).transpose(1, 2).unsqueeze(1)
                             for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves both sides: one zero column right, one zero row below, 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class AverageDownsample(nn.Module):
    """Halves both sides: the mean of each square of 2 x 2; has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class Upsample(nn.Module):
    """Doubles both sides: nearest neighbour, then 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result
