"""Augmentation: one draw for an image and all of its maps."""
import numpy as np
import pytest

from tokenizer.corpus.augment import Augmentation, Recolouring
from tokenizer.corpus.images import Crop, centre_crop
from tokenizer.corpus.modalities import RGB, Depth, Normals, Segmentation, fit_together


def test_a_draw_is_a_function_of_seed_and_position() -> None:
    crops = [Augmentation(seed=3).crop(40, 50, (16, 16), position) for position in range(50)]
    assert crops == [Augmentation(seed=3).crop(40, 50, (16, 16), position)
                     for position in range(50)]
    assert len(set(crops)) > 40
    assert crops != [Augmentation(seed=4).crop(40, 50, (16, 16), position)
                     for position in range(50)]


def test_draws_do_not_change_between_versions() -> None:
    assert Augmentation(seed=1).crop(100, 120, (32, 64), 7) == Crop(
        left=10, top=30, width=105, height=52, flipped=True)


def test_crops_vary_in_scale_place_and_side() -> None:
    crops = [Augmentation(crop_share=0.5).crop(100, 200, (10, 10), n) for n in range(400)]
    sides = np.array([crop.height for crop in crops])
    assert sides.min() in range(50, 53) and sides.max() in range(98, 101)
    assert all(crop.width == crop.height for crop in crops)
    assert min(crop.left for crop in crops) == 0
    assert max(crop.left + crop.width for crop in crops) >= 198
    assert 160 < sum(crop.flipped for crop in crops) < 240


def test_without_variation_the_crop_is_the_one_of_the_encode_job() -> None:
    still = Augmentation(crop_share=1, flip=False)
    assert {still.crop(30, 50, (16, 16), n) for n in range(9)} == {centre_crop(30, 50, (16, 16))}


@pytest.mark.parametrize("crop_share", [0.0, 1.5, float("nan")])
def test_an_impossible_share_is_refused(crop_share: float) -> None:
    with pytest.raises(ValueError, match=r"crop_share must lie in \(0, 1\], got"):
        Augmentation(crop_share=crop_share)


def test_all_modalities_of_an_image_show_the_same_part_of_it() -> None:
    rows, columns = np.mgrid[:40, :60]
    labels = (rows // 2 * 30 + columns // 2).astype(np.uint16)
    normals = np.zeros((40, 60, 3), np.uint8)
    normals[..., 0] = np.where(columns < 30, 255, 0)
    raws = {"image": np.stack([rows * 4, columns * 4, rows * 0], -1).astype(np.uint8),
            "depth": columns.astype(np.float32), "segmentation": labels, "normals": normals}
    modalities = {"image": RGB(), "depth": Depth(range=(0.0, 60.0)),
                  "segmentation": Segmentation(num_classes=600), "normals": Normals()}
    flips = set()
    for position in range(8):
        crop = Augmentation(seed=5).crop(40, 60, (20, 20), position)
        pixels = fit_together(modalities, raws, crop, dict.fromkeys(modalities, (20, 20)))
        across = pixels["image"][..., 1] / 4
        assert pixels["depth"] / 65535 * 60 == pytest.approx(across, abs=1)
        assert pixels["segmentation"] % 30 * 2 == pytest.approx(across, abs=3)
        assert pixels["segmentation"] // 30 * 2 == pytest.approx(pixels["image"][..., 0] / 4, abs=3)
        sides = np.sign(29.5 - across) * (-1 if crop.flipped else 1)
        clear = np.abs(across - 29.5) > 4
        x = pixels["normals"][..., 0] / 127.5 - 1
        assert np.array_equal(np.sign(x[clear]), sides[clear])
        flips.add(crop.flipped)
    assert flips == {True, False}


def test_recolouring_changes_contrast_around_the_mean_and_then_the_gains() -> None:
    pixels = np.array([[[50, 50, 50], [150, 150, 150]]], np.uint8)
    found = Recolouring(contrast=0.5, gains=(1.0, 2.0, 1.2)).apply(pixels)
    # The mean is 100: levels become 75 and 125.
    assert found.tolist() == [[[75, 150, 90], [125, 250, 150]]]
    assert Recolouring().apply(pixels).tolist() == pixels.tolist()


def test_recolouring_clips_instead_of_wrapping() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    found = Recolouring(contrast=2.0, gains=(1.5, 1.0, 1.0)).apply(pixels)
    assert found.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_colours_are_drawn_by_seed_and_position_within_their_share() -> None:
    draws = [Augmentation(seed=2, colours=0.2).recolouring(n) for n in range(200)]
    assert draws == [Augmentation(seed=2, colours=0.2).recolouring(n) for n in range(200)]
    factors = np.array([(draw.contrast, *draw.gains) for draw in draws])
    assert factors.shape == (200, 4)
    assert 0.8 <= factors.min() < 0.82 and 1.18 < factors.max() <= 1.2
    assert abs(np.corrcoef(factors.T) - np.eye(4)).max() < 0.3


@pytest.mark.parametrize("colours", [-0.1, 1.0])
def test_impossible_colours_are_refused(colours: float) -> None:
    with pytest.raises(ValueError, match=r"colours must lie in \[0, 1\), got"):
        Augmentation(colours=colours)
