"""InceptionV3 as FID uses it: images in, 2048 features out, with the published weights.

The network is that of the TensorFlow release of 2015-12-05, in the layout of the file
``pt_inception-2015-12-05-6726825d.pth``. It differs from the usual InceptionV3: average pools leave
the border out of the mean, and the last block pools by maximum.

Source: Szegedy et al. 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.

Letters: B images, H and W pixels.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenizer.weights import copy_tensors, read_tensors

NUM_FEATURES = 2048
HEAD = "fc.weight"
"""Name of the last layer's weights in the published file."""
SIDE = 299
"""Pixels a side that the network is made for."""

Size = int | tuple[int, int]
Layer = tuple[str, int, Size]
"""Name, output channels and kernel of one convolution."""
Branch = tuple[Layer | tuple[Layer, ...], ...]
"""Layers in order; a tuple of layers at the end stands side by side."""

A: tuple[Branch, ...] = (
    (("branch1x1", 64, 1),),
    (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)))
B: tuple[Branch, ...] = (
    (("branch3x3", 384, 3),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)))
D: tuple[Branch, ...] = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)),
    (("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)),
     ("branch7x7x3_4", 192, 3)))
E: tuple[Branch, ...] = (
    (("branch1x1", 320, 1),),
    (("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
    (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3),
     (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1)))))


def _c(width: int) -> tuple[Branch, ...]:
    """The blocks with factorised 7 x 7 convolutions, ``width`` channels inside."""
    return ((("branch1x1", 192, 1),),
            (("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)),
             ("branch7x7_3", 192, (7, 1))),
            (("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, (7, 1)),
             ("branch7x7dbl_3", width, (1, 7)), ("branch7x7dbl_4", width, (7, 1)),
             ("branch7x7dbl_5", 192, (1, 7))))


class InceptionFeatures(nn.Module):
    """Features of images after InceptionV3's last average pool; parameters named as published."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = Mixed(192, A, pool=32)
        self.Mixed_5c = Mixed(256, A, pool=64)
        self.Mixed_5d = Mixed(288, A, pool=64)
        self.Mixed_6a = Mixed(288, B)
        self.Mixed_6b = Mixed(768, _c(128), pool=192)
        self.Mixed_6c = Mixed(768, _c(160), pool=192)
        self.Mixed_6d = Mixed(768, _c(160), pool=192)
        self.Mixed_6e = Mixed(768, _c(192), pool=192)
        self.Mixed_7a = Mixed(768, D)
        self.Mixed_7b = Mixed(1280, E, pool=192)
        self.Mixed_7c = Mixed(2048, E, pool=192, pool_by_maximum=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, 2048)`` of pixels ``(B, 3, H, W)``, float in [0, 255].

        Other sizes are resized to 299 x 299, bilinear without antialiasing, as in FID.
        """
        images = pixels.float() / 127.5 - 1
        if images.shape[2:] != (SIDE, SIDE):
            images = functional.interpolate(images, (SIDE, SIDE), mode="bilinear",
                                            align_corners=False)
        features = images
        for name, child in self.named_children():
            features = child(features)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                features = functional.max_pool2d(features, 3, stride=2)
        return features.mean((2, 3))


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation with its running figures, ReLU."""

    def __init__(self, channels: int, wider: int, kernel: Size, stride: int = 1,
                 padding: int | tuple[int, int] = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, wider, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(wider, eps=1e-3)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(features)))


class Mixed(nn.Module):
    """Branches side by side, then a pool, joined over channels.

    Args:
        channels: of the input.
        branches: layers of each branch.
        pool: channels of the 1 x 1 convolution after the pool; 0 makes the block halve the sides,
            with stride 2 and without padding in the last layer of each branch and in the pool.
        pool_by_maximum: in a block that keeps its size, pool by maximum instead of the mean.
    """

    def __init__(self, channels: int, branches: Sequence[Branch], pool: int = 0,
                 pool_by_maximum: bool = False) -> None:
        super().__init__()
        self.branches, self.halves, self.pool_by_maximum = branches, not pool, pool_by_maximum
        for branch in branches:
            inner = channels
            for place, layer in enumerate(branch, 1):
                for name, wider, kernel in _side_by_side(layer):
                    strided = self.halves and place == len(branch)
                    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
                    padding = (0, 0) if strided else (rows // 2, columns // 2)
                    self.add_module(name, ConvNorm(inner, wider, kernel, 1 + strided, padding))
                inner = wider
        if pool:
            self.branch_pool = ConvNorm(channels, pool, 1)

    def forward(self, features: Tensor) -> Tensor:
        joined = []
        for branch in self.branches:
            inner = features
            for layer in branch:
                inner = torch.cat([self.get_submodule(name)(inner)
                                   for name, _, _ in _side_by_side(layer)], 1)
            joined.append(inner)
        return torch.cat([*joined, self._pool(features)], 1)

    def _pool(self, features: Tensor) -> Tensor:
        if self.halves:
            return functional.max_pool2d(features, 3, stride=2)
        if self.pool_by_maximum:
            pooled = functional.max_pool2d(features, 3, stride=1, padding=1)
        else:
            pooled = functional.avg_pool2d(features, 3, stride=1, padding=1,
                                           count_include_pad=False)
        result: Tensor = self.branch_pool(pooled)
        return result


def load_inception(place: str) -> InceptionFeatures:
    """The network with published weights, frozen.

    Args:
        place: path, URL or hub id of ``pt_inception-2015-12-05-6726825d.pth``; see
            `tokenizer.weights`.
    Raises:
        OSError, ValueError: the file cannot be had, or holds other tensors.
    """
    model = InceptionFeatures()
    names = {name: (name,) for name in model.state_dict()
             if not name.endswith("num_batches_tracked")}
    copy_tensors(model, read_tensors(place, "FID's InceptionV3 weights"), names, place)
    return model


def load_head(place: str) -> Tensor:
    """Weights ``(1008, 2048)`` of the last layer, from features to logits, of the same file.

    The Inception Score was published with these logits, which leave the layer's bias out.

    Raises:
        OSError, ValueError: the file cannot be had, or holds no such layer.
    """
    head = read_tensors(place, "FID's InceptionV3 weights").get(HEAD)
    if not isinstance(head, Tensor) or head.ndim != 2 or head.shape[1] != NUM_FEATURES:
        raise ValueError(f"{place} should hold {HEAD} of shape (classes, {NUM_FEATURES}), but "
                         f"holds {tuple(head.shape) if isinstance(head, Tensor) else 'nothing'}")
    return head.float()


def _side_by_side(layer: Layer | tuple[Layer, ...]) -> tuple[Layer, ...]:
    """One layer or several, as several."""
    return (layer,) if isinstance(layer[0], str) else layer
