"""The patch discriminator: it judges overlapping patches of an image, each by one logit.

Its normalisation is chosen by ``training.adversarial.norm``; to add one, extend `NORMS` and, where
it is a layer, `_norm_layer`.

Letters: B images, C channels, H and W pixels, N strided convolutions.
"""
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

MAX_WIDENING = 8
"""The widest layer has this many times the channels of the first."""

NORMS = ("batch", "group", "spectral")
"""Of activations over a batch, as published; over groups of an image's channels; of weights."""


class BatchNorm(nn.Module):
    """Batch normalisation over the images of all processes together.

    It keeps no running statistics, as a discriminator is never used outside training; so a batch
    that must not count leaves nothing behind. Every process must have equally many images.

    Args:
        channels: C.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` with mean 0 and variance 1, then scaled and moved."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return F.batch_norm(features, None, None, self.weight, self.bias, training=True)
        own = features.float()
        variance, mean = _joint_moments(own)
        scale = self.weight * (variance + 1e-5).rsqrt()
        centred = own - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 pixels with normalisation and leaky ReLU.

    N convolutions of stride 2, each doubling the channels up to ``8 * width``, one of stride 1
    and one to a single logit. With N = 3 a logit sees 70 x 70 pixels.

    Args:
        in_channels: C of the images.
        width: channels after the first convolution.
        num_layers: N.
        norm: a name of `NORMS`.

    Source: Isola et al. 2017, arXiv:1611.07004, section 6.1.2; ``spectral`` as in Miyato et al.
    2018, arXiv:1802.05957.
    """

    def __init__(self, in_channels: int, width: int = 64, num_layers: int = 3,
                 norm: str = "batch") -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                                   nn.LeakyReLU(0.2)]
        channels = width
        for index in range(1, num_layers + 1):
            wider = width * min(1 << index, MAX_WIDENING)
            stride = 2 if index < num_layers else 1
            layers += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1,
                                 bias=norm == "spectral"),
                       *_norm_layer(norm, wider), nn.LeakyReLU(0.2)]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))
        self.apply(_initialise)
        if norm == "spectral":
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 1, H / 2^N - 2, W / 2^N - 2)``; high means real.

        Args:
            images: ``(B, C, H, W)``, float, in the range of the modality's inputs.
        """
        logits: Tensor = self.layers(images)
        return logits


def check_size(size: tuple[int, int], num_layers: int) -> None:
    """Refuse images of so few pixels, height and width, that they leave no logit.

    Raises:
        ValueError: they are too small for ``num_layers`` convolutions of stride 2.
    """
    least = 3 << num_layers
    if min(size) < least:
        raise ValueError(f"images of {size[0]} x {size[1]} pixels are too small for a "
                         f"discriminator of {num_layers} layers, which needs {least} x {least}; "
                         "lower training.adversarial.num_layers")


def _joint_moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean, ``(C,)`` each, over images and pixels of all processes, with gradients.

    Variances are taken about each process's mean and brought to the joint one: a difference of
    squares would lose them where the mean is large.
    """
    # This one carries gradients; not every build of torch has it.
    from torch.distributed.nn.functional import all_reduce
    own = torch.stack(torch.var_mean(features, (0, 2, 3), correction=0))
    empty = torch.zeros_like(own)
    variances, means = all_reduce(torch.stack([
        own if rank == dist.get_rank() else empty for rank in range(dist.get_world_size())
    ])).unbind(1)
    mean = means.mean(0)
    return variances.mean(0) + (means - mean).square().mean(0), mean


def _norm_layer(norm: str, channels: int) -> list[nn.Module]:
    """The layer that ``norm`` puts behind a convolution, if any."""
    if norm == "batch":
        return [BatchNorm(channels)]
    return [nn.GroupNorm(math.gcd(32, channels), channels)] if norm == "group" else []


def _initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), those of normalisations around 1; biases of normalisations 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, BatchNorm | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
