"""Surface normals: length, mirroring, holes, angles."""
import numpy as np
import pytest
from corpus_files import encode, noise
from PIL import Image

from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import Normals, UnreadableImage

TOWARDS = (128, 128, 255)
"""The normal of a surface that faces the camera."""


def filled(*rows: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(rows, np.uint8)


def whole(pixels: np.ndarray, flipped: bool = False) -> Crop:
    return Crop(left=0, top=0, width=pixels.shape[1], height=pixels.shape[0], flipped=flipped)


def lengths(pixels: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels / 127.5 - 1, axis=-1)


def test_normals_have_length_one_after_resampling() -> None:
    raw = noise(0, 40, 40)
    raw[..., 2] = 255
    pixels = Normals().fit(raw, whole(raw), (16, 16))
    assert np.abs(lengths(pixels) - 1).max() < 0.01


def test_between_two_walls_the_normal_points_half_way() -> None:
    raw = filled([(255, 128, 128), (128, 128, 255)] * 8).repeat(16, 0)
    pixels = Normals().fit(raw, whole(raw), (1, 1))
    assert np.abs(pixels[0, 0].astype(int) - [218, 128, 218]).max() <= 1  # (1, 0, 1) / sqrt(2)


def test_mirroring_moves_pixels_and_negates_x() -> None:
    raw = filled([(255, 128, 128), TOWARDS])
    plain, mirrored = (Normals().fit(raw, whole(raw, flipped), (1, 2)) for flipped in (False, True))
    assert plain[0, 0, 0] == 255 and plain[0, 1, 2] == 255
    assert mirrored[0, 1].tolist() == [0, *plain[0, 0, 1:]]
    assert mirrored[0, 0].tolist() == [255 - plain[0, 1, 0], *plain[0, 1, 1:]]


def test_a_pixel_without_a_normal_stays_without_one() -> None:
    for grey in (127, 128):
        raw = np.full((4, 4, 3), grey, np.uint8)
        for flipped in (False, True):
            pixels = Normals().fit(raw, whole(raw, flipped), (4, 4))
            assert np.unique(pixels).tolist() == [128]
    opposite = filled([(255, 128, 128), (0, 127, 127)])
    assert Normals().fit(opposite, whole(opposite), (1, 1)).tolist() == [[[128, 128, 128]]]


def test_the_angle_is_in_degrees_over_pixels_that_have_a_normal() -> None:
    truth = filled([TOWARDS, TOWARDS, TOWARDS, (128, 128, 128)])[None]
    found = filled([TOWARDS, (255, 128, 128), (128, 128, 128), (0, 0, 0)])[None]
    angles = Normals().difference(found, truth)
    assert angles["mean_angle"] == pytest.approx((0 + 90 + 90) / 3, abs=0.3)
    diagonal = filled([(218, 128, 218)])[None]
    angle = Normals().difference(diagonal, truth[:, :, :1])["mean_angle"]
    assert angle == pytest.approx(45, abs=0.4)


def test_opposite_normals_are_half_a_turn_apart() -> None:
    truth, found = filled([(255, 255, 255)])[None], filled([(0, 0, 0)])[None]
    assert Normals().difference(found, truth)["mean_angle"] == pytest.approx(180)


def test_length_of_found_normals_does_not_count() -> None:
    truth, short = filled([(255, 128, 128)])[None], filled([(180, 128, 128)])[None]
    assert Normals().difference(short, truth)["mean_angle"] < 0.6


def test_alpha_is_left_out_and_grey_is_refused() -> None:
    colours = noise(0, 6, 6)
    alpha = np.dstack([colours, np.zeros((6, 6), np.uint8)])
    assert np.array_equal(Normals().read(encode(Image.fromarray(alpha)), "x.png"), colours)
    with pytest.raises(UnreadableImage, match="mode L where normals are expected"):
        Normals().read(encode(colours[..., 0]), "x.png")


def test_normals_are_written_without_loss_whatever_pictures_are() -> None:
    pixels = noise(1, 6, 6)
    payload, suffix = Normals().write(pixels, "jpeg")
    assert suffix == ".png" and np.array_equal(Normals().read(payload, "x.png"), pixels)
