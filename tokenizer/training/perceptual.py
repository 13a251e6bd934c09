"""The perceptual distance LPIPS on VGG16 features, from weights that the user gives as files.

Nothing is downloaded and nothing needs torchvision. Two files are read, in the layout in which
they are published: VGG16's ImageNet weights of torchvision (``features.0.weight``, ...) and the
LPIPS 0.1 linear layers for VGG16 (``lin0.model.1.weight``, ...), as ``.pth`` or ``.safetensors``.

Letters: B images, C channels, H and W pixels.
"""
import io
import pickle

import safetensors.torch
import torch
from torch import Tensor, nn

from tokenizer import storage
from tokenizer.training.config import PerceptualConfig

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of VGG16's convolutions; a 2 x 2 maximum stands between blocks."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's channels in the range [-1, 1]."""
ADVICE = ("give training.perceptual.vgg16=FILE (torchvision's vgg16-397923af.pth) and "
          "training.perceptual.linear=FILE (vgg.pth of LPIPS 0.1), or switch the term off with "
          "training.perceptual.weight=0")


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
            first: ``(B, C, H, W)``, float in [-1, 1], C 3 or 1, at least 16 pixels a side.
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


def load_perceptual(config: PerceptualConfig) -> PerceptualDistance:
    """The distance with the weights that ``config`` names, frozen.

    Raises:
        FileNotFoundError: a file is not named or does not exist; the message says how to get it.
        ValueError: a file is damaged or holds other tensors.
    """
    distance = PerceptualDistance()
    vgg16 = _read_tensors(config.vgg16, "VGG16 weights")
    linear = _read_tensors(config.linear, "LPIPS linear layers")
    wanted = {f"features.{name}": (config.vgg16, vgg16, f"features.{name}")
              for name in distance.features.state_dict()}
    wanted |= {f"linear.{index}": (config.linear, linear, f"lin{index}.model.1.weight")
               for index in range(len(BLOCKS))}
    for name, (url, tensors, source) in wanted.items():
        target = distance.get_parameter(name)
        if source not in tensors or tensors[source].shape != target.shape:
            found = tuple(tensors[source].shape) if source in tensors else "nothing"
            raise ValueError(f"{url} should hold {source} of shape {tuple(target.shape)}, "
                             f"but holds {found}; {ADVICE}")
        target.copy_(tensors[source])
    return distance.eval()


def _unit_length(features: Tensor) -> Tensor:
    """Features divided by their length over channels, in float32."""
    features = features.float()
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _read_tensors(url: str | None, what: str) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` or ``.safetensors`` file, read without running code."""
    if url is None:
        raise FileNotFoundError(f"the perceptual loss needs {what}, and none are given: {ADVICE}")
    if not storage.exists(url):
        raise FileNotFoundError(f"{url} with {what} does not exist: {ADVICE}")
    content = storage.read_bytes(url)
    try:
        if url.endswith(".safetensors"):
            return safetensors.torch.load(content)
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{url} holds no {what} that can be read: {ADVICE}") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{url} holds a {type(tensors).__name__}, not {what} by name: {ADVICE}")
    return tensors
