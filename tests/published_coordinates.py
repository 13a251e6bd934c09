"""Coordinates as taming-transformers computes them, independently."""
import torch
import torch.nn.functional as F
from torch import Tensor


def taming_coordinates(image: tuple[int, int], crop: tuple[int, int, int, int], cell: int,
                       codes: int) -> Tensor:
    """Codes ``(h, w)`` of the crop (top, left, height, width) of an image, for cells of pixels."""
    count, (top, left, height, width) = image[0] * image[1], crop
    plane = torch.arange(count, dtype=torch.float64).view(1, 1, *image) / count
    part = plane[:, :, top:top + height, left:left + width]
    means = F.interpolate(part, scale_factor=1 / cell, mode="area")
    return (codes * means.clamp(0, 1)).round().long()[0, 0]
