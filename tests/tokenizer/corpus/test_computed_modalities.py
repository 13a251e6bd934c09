"""Modalities computed from images: edges and images of low resolution."""
import numpy as np
import pytest
import torch
from corpus_files import encode, noise
from PIL import Image

from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import RGB, Edges, LowRes, UnreadableImage


def whole(height: int, width: int) -> Crop:
    return Crop(left=0, top=0, width=width, height=height)


def step(height: int = 32, width: int = 32) -> np.ndarray:
    """Black on the left, white from column 16 on."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, 16:] = 255
    return image


def test_the_edge_of_a_step_is_a_line_along_it() -> None:
    edges = Edges().fit(step(), whole(32, 32), (32, 32))
    assert edges.dtype == np.uint8 and set(np.unique(edges)) == {0, 255}
    assert edges[1:31, 15:17].any(1).all()
    assert not edges[:, :15].any() and not edges[:, 17:].any()


def test_edges_are_those_of_the_implementation_named() -> None:
    from skimage.color import rgb2gray
    from skimage.feature import canny
    image = noise(0, 40, 40)
    expected = canny(rgb2gray(image), sigma=2)
    edges = Edges().fit(image, whole(40, 40), (40, 40))
    assert expected.any() and np.array_equal(edges == 255, expected)


def test_thresholds_decide_what_is_an_edge() -> None:
    faint = step() // 8
    assert not Edges().fit(faint, whole(32, 32), (32, 32)).any()
    assert Edges(low=0.001, high=0.01).fit(faint, whole(32, 32), (32, 32)).any()


def test_sigma_smooths_details_away() -> None:
    image = step()
    image[8, 6] = 255
    counts = [(Edges(sigma=sigma).fit(image, whole(32, 32), (32, 32))[:, :12] > 0).sum()
              for sigma in (0.5, 3.0)]
    assert counts[0] > 0 == counts[1]


def test_edges_are_found_in_the_crop_at_its_final_size() -> None:
    large = step().repeat(4, 0).repeat(4, 1)
    crop = Crop(left=16, top=8, width=96, height=96)
    small = RGB().fit(large, crop, (24, 24))
    assert np.array_equal(Edges().fit(large, crop, (24, 24)),
                          Edges().fit(small, whole(24, 24), (24, 24)))


def test_f1_counts_edge_pixels_in_their_exact_place() -> None:
    truth = np.array([[[255, 255, 0, 0]]], np.uint8)
    found = np.array([[[200, 127, 128, 0]]], np.uint8)  # one right, one missed, one wrong
    assert Edges().difference(found, truth) == {"f1": 0.5}
    empty = np.zeros_like(truth)
    assert Edges().difference(empty, empty) == {"f1": 1.0}
    assert Edges().difference(truth, empty) == {"f1": 0.0}


def test_decoded_edges_are_grey_and_clipped() -> None:
    outputs = torch.tensor([-2.0, -1.0, 0.1, 2.0]).reshape(1, 1, 2, 2)
    pixels = Edges().to_pixels(outputs)
    assert pixels.dtype == torch.uint8 and pixels[0].tolist() == [[0, 0], [140, 255]]


def test_a_damaged_image_has_no_edges() -> None:
    with pytest.raises(UnreadableImage, match="truncated PNG"):
        Edges().read(encode(noise(0))[:200], "x.png")


def test_low_resolution_is_bicubic_down_and_up_of_the_fitted_image() -> None:
    raw, crop = noise(0, 50, 40), Crop(left=3, top=7, width=32, height=32)
    image = Image.fromarray(RGB().fit(raw, crop, (16, 16)))
    bicubic = Image.Resampling.BICUBIC
    expected = np.array(image.resize((4, 4), bicubic).resize((16, 16), bicubic))
    assert np.array_equal(LowRes(factor=4).fit(raw, crop, (16, 16)), expected)


def test_low_resolution_keeps_size_and_mean_and_loses_details() -> None:
    image = noise(1, 32, 32)
    coarse = LowRes(factor=8).fit(image, whole(32, 32), (32, 32))
    assert coarse.shape == image.shape and coarse.dtype == np.uint8
    assert coarse.mean() == pytest.approx(image.mean(), abs=3)
    assert coarse.std() < image.std() / 3


def test_a_factor_that_does_not_divide_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="factor 5 must divide both sides .* got 32 x 32"):
        LowRes(factor=5).fit(noise(0, 32, 32), whole(32, 32), (32, 32))
