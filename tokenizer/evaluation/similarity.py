"""Structural similarity of images, SSIM and MS-SSIM.

Both are computed for each channel with a Gaussian window that stays inside the image, and averaged
over positions and channels, in the dtype that is given: float64 keeps clear of cancellation.

Letters: B images, C channels, H and W pixels.
"""
import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
"""Side and deviation of the Gaussian window, in pixels."""
K1, K2 = 0.01, 0.03
"""Constants of luminance and contrast, as shares of the data range."""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales of MS-SSIM, finest first; they add up to 1."""
MIN_SIDE, MIN_SIDE_MULTISCALE = WINDOW, WINDOW << (len(SCALE_WEIGHTS) - 1)
"""Smallest side of an image, in pixels, for SSIM and for MS-SSIM."""


def structural_similarity(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """SSIM of each pair of images.

    Args:
        first: ``(B, C, H, W)`` float, both sides at least `MIN_SIDE`.
        second: like ``first``.
        data_range: greatest minus least possible value, 255 for bytes.
    Returns:
        ``(B,)``, at most 1, which equal images have.
    Raises:
        ValueError: the images are too small, or of two shapes.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, equation 13.
    """
    _check(first, second, MIN_SIDE)
    return _compare(first, second, data_range)[0]


def multiscale_similarity(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """MS-SSIM of each pair of images: contrast and structure at five scales, luminance at the last.

    Between scales images are averaged over 2 x 2 pixels. Negative similarities count as 0.

    Args:
        first: ``(B, C, H, W)`` float, both sides at least `MIN_SIDE_MULTISCALE`.
        second: like ``first``.
        data_range: greatest minus least possible value, 255 for bytes.
    Returns:
        ``(B,)`` in [0, 1].
    Raises:
        ValueError: the images are too small, or of two shapes.

    Source: Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216, equation 7.
    """
    _check(first, second, MIN_SIDE_MULTISCALE)
    total = first.new_ones(len(first))
    for scale, weight in enumerate(SCALE_WEIGHTS, 1):
        whole, contrast = _compare(first, second, data_range)
        factor = whole if scale == len(SCALE_WEIGHTS) else contrast
        total = total * factor.clamp(min=0) ** weight
        first, second = (functional.avg_pool2d(images, 2) for images in (first, second))
    return total


def _compare(first: Tensor, second: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM ``(B,)``, and its part for contrast and structure alone, ``(B,)``."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    stacked = torch.stack([first, second, first * first, second * second, first * second])
    mean1, mean2, square1, square2, product = _blur(stacked.flatten(0, 2)).unflatten(
        0, (5, *first.shape[:2]))
    variances = square1 - mean1 * mean1 + square2 - mean2 * mean2
    contrast = (2 * (product - mean1 * mean2) + c2) / (variances + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1 * mean1 + mean2 * mean2 + c1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _blur(planes: Tensor) -> Tensor:
    """Planes ``(N, H, W)`` weighted by the window at each place where it fits."""
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    window = torch.softmax(-offsets.square() / (2 * SIGMA ** 2), 0).tolist()
    for axis in (1, 2):
        # Sums of shifted planes, in place: a sixth of the time of a float64 convolution.
        length = planes.shape[axis] - WINDOW + 1
        total = planes.narrow(axis, 0, length) * window[0]
        for shift in range(1, WINDOW):
            total.add_(planes.narrow(axis, shift, length), alpha=window[shift])
        planes = total
    return planes


def _check(first: Tensor, second: Tensor, least: int) -> None:
    if first.shape != second.shape:
        raise ValueError(f"images to compare must have one shape, got {tuple(first.shape)} and "
                         f"{tuple(second.shape)}")
    if min(first.shape[2:]) < least:
        raise ValueError(f"both sides of the images must be at least {least} pixels, got "
                         f"{tuple(first.shape[2:])}")
