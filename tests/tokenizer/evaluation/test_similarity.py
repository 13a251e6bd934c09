"""SSIM and MS-SSIM against a window moved by hand, and what must hold for any image."""
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenizer.evaluation.similarity import (
    MIN_SIDE_MULTISCALE,
    multiscale_similarity,
    structural_similarity,
)

Compare = Callable[[Tensor, Tensor, float], Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed),
                      dtype=torch.float64) * 255


def window() -> np.ndarray:
    line = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5 ** 2))
    return np.outer(line, line) / np.outer(line, line).sum()


def by_hand(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """SSIM and its contrast part of two planes ``(H, W)``, one place of the window at a time."""
    weights, c1, c2 = window(), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    whole, contrast = [], []
    for top in range(first.shape[0] - 10):
        for left in range(first.shape[1] - 10):
            a, b = (plane[top:top + 11, left:left + 11] for plane in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a = (weights * (a - mean_a) ** 2).sum()
            var_b = (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            contrast.append((2 * both + c2) / (var_a + var_b + c2))
            whole.append((2 * mean_a * mean_b + c1) / (mean_a ** 2 + mean_b ** 2 + c1)
                         * contrast[-1])
    return float(np.mean(whole)), float(np.mean(contrast))


def test_ssim_is_that_of_a_window_moved_by_hand() -> None:
    first = noise(2, 3, 14, 17)
    second = 0.7 * first + 0.3 * noise(2, 3, 14, 17, seed=1)
    found = structural_similarity(first, second, 255)
    for image in range(2):
        pairs = zip(first[image].numpy(), second[image].numpy(), strict=True)
        expected = np.mean([by_hand(*pair)[0] for pair in pairs])
        assert found[image].item() == pytest.approx(expected, abs=1e-10)


def test_ms_ssim_is_contrast_at_four_scales_and_ssim_at_the_last() -> None:
    first = noise(1, 1, 11, 12).repeat_interleave(16, 2).repeat_interleave(16, 3)
    second = (first + 0.3 * noise(*first.shape, seed=1)).clamp(0, 255)
    expected, planes = 1.0, [first[0, 0].numpy(), second[0, 0].numpy()]
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        # One row of places is enough to compare the finer scales in good time.
        whole, contrast = by_hand(*planes) if scale > 1 else (0.0, _fast_contrast(*planes))
        expected *= (whole if scale == 4 else contrast) ** weight
        planes = [plane[:len(plane) // 2 * 2, :plane.shape[1] // 2 * 2].reshape(
            len(plane) // 2, 2, plane.shape[1] // 2, 2).mean((1, 3)) for plane in planes]
    found = multiscale_similarity(first, second, 255)
    assert found.item() == pytest.approx(expected, abs=1e-10)


def _fast_contrast(first: np.ndarray, second: np.ndarray) -> float:
    """The contrast part of `by_hand` over all places at once."""
    places = [np.lib.stride_tricks.sliding_window_view(plane, (11, 11))
              for plane in (first, second)]
    means = [(view * window()).sum((2, 3)) for view in places]
    squares = [(view ** 2 * window()).sum((2, 3)) for view in places]
    both = (places[0] * places[1] * window()).sum((2, 3)) - means[0] * means[1]
    variances = squares[0] - means[0] ** 2 + squares[1] - means[1] ** 2
    c2 = (0.03 * 255) ** 2
    return float(((2 * both + c2) / (variances + c2)).mean())


@pytest.mark.parametrize("compare", [structural_similarity, multiscale_similarity])
def test_equal_images_have_1_and_noise_lowers_it(compare: Compare) -> None:
    image = noise(1, 3, 176, 180)
    near = (image + 20 * (noise(1, 3, 176, 180, seed=1) / 255 - 0.5)).clamp(0, 255)
    far = noise(1, 3, 176, 180, seed=2)
    values = [compare(image, other, 255).item() for other in (image, near, far)]
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert 1 > values[1] > 0.9 and 0 <= values[2] < 0.2


def test_the_data_range_is_part_of_the_figure() -> None:
    first, second = noise(1, 3, 20, 20), noise(1, 3, 20, 20, seed=1)
    scaled = structural_similarity(first / 255, second / 255, 1.0)
    torch.testing.assert_close(scaled, structural_similarity(first, second, 255.0))
    wrong = structural_similarity(first / 255, second / 255, 2.0)
    assert (wrong > scaled).all()


@pytest.mark.parametrize(("compare", "side"), [
    (structural_similarity, 11), (multiscale_similarity, MIN_SIDE_MULTISCALE)])
def test_the_smallest_size_works_and_one_pixel_less_is_refused(
        compare: Compare, side: int) -> None:
    assert compare(noise(1, 1, side, side), noise(1, 1, side, side), 255).item() == pytest.approx(1)
    with pytest.raises(ValueError, match=f"at least {side} pixels, got \\({side}, {side - 1}\\)"):
        compare(noise(1, 1, side, side - 1), noise(1, 1, side, side - 1), 255)


def test_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        structural_similarity(noise(1, 1, 20, 20), noise(1, 3, 20, 20), 255)
