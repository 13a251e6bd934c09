"""The perceptual distance LPIPS on VGG16 features, from weights that the user names.

Nothing here needs torchvision. Two files are read as they are published, by path, URL or hub id
(see `tokenizer.weights`): VGG16's ImageNet weights of torchvision (``features.0.weight``, ...) and
the LPIPS 0.1 linear layers for VGG16 (``lin0.model.1.weight``, ...); or one file with both, the
state of the published LPIPS model.

Letters: B images, C channels, H and W pixels.
"""
import torch
from torch import Tensor, nn

from tokenizer.training.config import PerceptualConfig
from tokenizer.weights import copy_tensors, read_tensors

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of VGG16's convolutions; a 2 x 2 maximum stands between blocks."""
LEAST_SIDE = 1 << (len(BLOCKS) - 1)
"""Pixels that a side of an image must have, so that one is left for the last block."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's channels in the range [-1, 1]."""
ADVICE = ("give training.perceptual.vgg16=FILE (torchvision's vgg16-397923af.pth) and "
          "training.perceptual.linear=FILE (vgg.pth of LPIPS 0.1) as path, URL or hub id, or "
          "switch the term off with training.perceptual.weight=0")


class PerceptualDistance(nn.Module):
    """LPIPS with VGG16: how different two images look, from 0.

    Differences of unit-length features after each block of VGG16, squared, weighted by channel,
    averaged over space and summed over blocks. Weights are frozen.

    Source: Zhang et al. 2018, arXiv:1801.03924, equation 1.
    """
    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        channels = 3
        for block in BLOCKS:
            layers += [nn.MaxPool2d(2)] if layers else []
            for wider in block:
                layers += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU()]
                channels = wider
            self.ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList([torch.zeros(1, block[-1], 1, 1) for block in BLOCKS])
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            first: ``(B, C, H, W)``, float in [-1, 1], C 3 or 1, sides of at least `LEAST_SIDE`.
            second: like ``first``.
        Returns:
            ``(B,)``, float32.
        """
        total = torch.zeros(len(first), device=first.device)
        pairs = [(images.expand(-1, 3, -1, -1) - self.shift) / self.scale
                 for images in (first, second)]
        begin = 0
        for end, weight in zip(self.ends, self.linear, strict=True):
            pairs = [self.features[begin:end](features) for features in pairs]
            difference = _unit_length(pairs[0]) - _unit_length(pairs[1])
            total = total + (weight * difference.square()).sum(1).mean((1, 2))
            begin = end
        return total


def load_perceptual(config: PerceptualConfig, advice: str = ADVICE) -> PerceptualDistance:
    """The distance with the weights that ``config`` names, frozen.

    Args:
        advice: how to give the files or do without, for messages.
    Raises:
        FileNotFoundError: a file is not named or does not exist; the message says how to get it.
        OSError: a file cannot be reached.
        ValueError: a file is damaged, has another hash, or holds other tensors.
    """
    distance = PerceptualDistance()
    for place, what, names in (
            (config.vgg16, "VGG16 weights", _feature_names(distance)),
            (config.linear, "LPIPS linear layers", _linear_names())):
        if place is None:
            raise FileNotFoundError(f"LPIPS needs {what}, and none are given: {advice}")
        try:
            copy_tensors(distance, read_tensors(place, what), names, place)
        except (OSError, ValueError) as error:
            kind = next(kind for kind in (FileNotFoundError, OSError, ValueError)
                        if isinstance(error, kind))
            raise kind(f"{error}; {advice}") from error
    return distance.eval()


def _feature_names(distance: PerceptualDistance) -> dict[str, tuple[str, ...]]:
    """For each parameter of VGG16, its name in torchvision's file and in that of a whole LPIPS."""
    names: dict[str, tuple[str, ...]] = {}
    for name in distance.features.state_dict():
        layer = int(name.partition(".")[0])
        block = 1 + sum(layer >= end for end in distance.ends)
        names[f"features.{name}"] = (f"features.{name}", f"net.slice{block}.{name}")
    return names


def _linear_names() -> dict[str, tuple[str, ...]]:
    """For each linear layer, the names in use for it; the published one first."""
    return {f"linear.{index}": (f"lin{index}.model.1.weight", f"lins.{index}.model.1.weight",
                                f"lin{index}.model.0.weight", f"lin{index}.weight")
            for index in range(len(BLOCKS))}


def _unit_length(features: Tensor) -> Tensor:
    """Features divided by their length over channels, in float32.

    The gradient of `torch.linalg.vector_norm` is 0 where all channels are, and not infinite.
    """
    features = features.float()
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
