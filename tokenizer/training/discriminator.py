"""The patch discriminator: it judges overlapping patches of an image, each by one logit.

Letters: B images, C channels, H and W pixels, N strided convolutions.
"""
from torch import Tensor, nn

MAX_WIDENING = 8
"""The widest layer has this many times the channels of the first."""


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 pixels with batch normalisation and leaky ReLU.

    N convolutions of stride 2, each doubling the channels up to ``8 * width``, one of stride 1
    and one to a single logit. With N = 3 a logit sees 70 x 70 pixels.

    Args:
        in_channels: C of the images.
        width: channels after the first convolution.
        num_layers: N.

    Source: Isola et al. 2017, arXiv:1611.07004, section 6.1.2.
    """

    def __init__(self, in_channels: int, width: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
                                   nn.LeakyReLU(0.2)]
        channels = width
        for index in range(1, num_layers + 1):
            wider = width * min(1 << index, MAX_WIDENING)
            stride = 2 if index < num_layers else 1
            layers += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=False),
                       nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 1, H / 2^N - 2, W / 2^N - 2)``; high means real.

        Args:
            images: ``(B, C, H, W)``, float in [-1, 1].
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


def _initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), those of normalisations around 1; biases of normalisations 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
