"""Recipes of depth: levels against hand-computed values, units, scores."""
import io

import numpy as np
import pytest
from corpus_files import encode
from PIL import Image

from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import Depth
from tokenizer.corpus.modalities.depth import inverse_depth, standardise

METRES = np.array([[0.5, 1.0, 2.0, 10.0, 80.0]], np.float32)


def fitted(modality: Depth, depth: np.ndarray) -> np.ndarray:
    """Pixels of a whole map at its own size, by way of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, depth)
    height, width = depth.shape
    raw = modality.read(buffer.getvalue(), "depth.npy")
    return modality.fit(raw, Crop(left=0, top=0, width=width, height=height), depth.shape)


def test_inverse_depth_of_a_range_goes_from_the_far_end_to_the_near_one() -> None:
    modality = Depth(range=(0.5, 80.0), inverse=True)
    shares = (1 / METRES.astype(np.float64) - 1 / 80) / (1 / 0.5 - 1 / 80)
    assert fitted(modality, METRES)[0].tolist() == [round(share * 65535) for share in shares[0]]
    assert fitted(modality, np.array([[0.1, 200.0]], np.float32)).tolist() == [[65535, 0]]


def test_depth_comes_back_in_the_units_of_the_files() -> None:
    for modality in (Depth(range=(0.0, 80.0)), Depth(range=(0.5, 80.0), inverse=True)):
        assert modality.depth(fitted(modality, METRES)) == pytest.approx(METRES, rel=3e-3)


@pytest.mark.parametrize("hole", [0.0, -1.0, 1e-42])
def test_a_pixel_without_a_measurement_is_infinitely_far(hole: float) -> None:
    depth = np.array([[hole, 1.0, 2.0]], np.float32)
    assert inverse_depth(depth).tolist() == [[0.0, 1.0, 0.5]]
    assert fitted(Depth(inverse=True), depth).tolist() == [[0, 65535, 32768]]


def test_a_hole_does_not_make_its_neighbours_near() -> None:
    depth = np.full((8, 8), 10, np.float32)
    depth[3:5, 3:5] = 0
    modality = Depth(range=(1.0, 100.0), inverse=True)
    raw = inverse_depth(depth)
    pixels = modality.fit(raw, Crop(left=0, top=0, width=8, height=8), (3, 3))
    assert pixels[1, 1] < pixels[0, 0] == pixels.max()


def test_standardisation_leaves_a_tenth_at_each_end_out_of_its_moments() -> None:
    values = np.arange(20, dtype=np.float64).reshape(4, 5)
    values[3, 4], values[0, 0] = 1e6, -1e6
    core = np.arange(2, 18)  # 20 values less the 2 least and the 2 greatest
    mean, deviation = 9.5, np.sqrt(((core - 9.5) ** 2).sum() / 15)
    assert standardise(values) == pytest.approx((values - mean) / deviation)


@pytest.mark.parametrize("wall", [3.0, 3e4, 0.1])
def test_a_small_thing_before_a_flat_wall_is_standardised_by_all_pixels(wall: float) -> None:
    values = np.full((10, 10), wall)
    values[0, :5] = wall / 2
    expected = (values - values.mean()) / values.std(ddof=1)
    assert standardise(values) == pytest.approx(expected)
    shaken = values * (1 + np.random.default_rng(0).uniform(-1e-7, 1e-7, values.shape))
    assert standardise(shaken) == pytest.approx(expected, abs=1e-5)  # not noise of +-1 deviation
    assert standardise(shaken[2:]).tolist() == np.zeros((8, 10)).tolist()


def test_standardised_depth_does_not_know_scale_and_shift() -> None:
    depth = np.random.default_rng(0).uniform(0, 1, (16, 16)).astype(np.float32)
    modality = Depth(scaling="standardised")
    first, second = fitted(modality, depth), fitted(modality, depth * 16 + 32)
    assert np.abs(first.astype(int) - second).max() <= 1
    truncated = np.sort(modality.depth(first), axis=None)[25:230]
    assert truncated.mean() == pytest.approx(0, abs=1e-3)
    assert truncated.std(ddof=1) == pytest.approx(1, abs=1e-3)


def test_standardised_outliers_are_clipped_and_constant_crops_are_zero() -> None:
    depth = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    depth[0, 0] = -1e4
    pixels = fitted(Depth(scaling="standardised"), depth)
    assert pixels[0, 0] == 0
    flat = fitted(Depth(scaling="standardised"), np.full((4, 4), 3, np.float32))
    assert np.unique(flat).tolist() == [32768]
    assert fitted(Depth(scaling="standardised"), np.ones((1, 1), np.float32)).tolist() == [[32768]]


def test_recipes_look_at_the_crop_alone() -> None:
    depth = np.concatenate([np.linspace(0, 1, 64).reshape(8, 8), np.full((8, 8), 1e3)], 1)
    left = Crop(left=0, top=0, width=8, height=8)
    for modality in (Depth(), Depth(scaling="standardised"), Depth(inverse=True)):
        raw = (1 + depth).astype(np.float32)
        alone = modality.fit(raw[:, :8].copy(), left, (8, 8))
        assert np.array_equal(modality.fit(raw, left, (8, 8)), alone)


@pytest.mark.parametrize("payload", [
    encode(np.array([[0, 51, 255]], np.uint8)),
    encode(np.array([[0, 13107, 65535]], np.uint16)),
    encode(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), "TIFF"),
    encode(Image.fromarray(np.array([[0, 0.2, 1]], "<f4").view(np.uint8).reshape(1, 3, 4)))],
    ids=["uint8", "uint16", "float TIFF", "float32 in RGBA"])
def test_every_kind_of_file_gives_the_same_levels(payload: bytes) -> None:
    modality = Depth()
    raw = modality.read(payload, "depth.png")
    pixels = modality.fit(raw, Crop(left=0, top=0, width=3, height=1), (1, 3))
    assert pixels.tolist() == [[0, 13107, 65535]]


@pytest.mark.parametrize(("modality", "words"), [
    (Depth(), "level / 65535 of the way from the crop's least to its greatest depth"),
    (Depth(inverse=True), "least to its greatest 1 / depth"),
    (Depth(range=(0.5, 80.0)), "depth = 0.5 + level / 65535 * 79.5, in units of the files"),
    (Depth(range=(0.5, 80.0), inverse=True), "1 / depth = 0.0125 + level / 65535 * 1.9875"),
    (Depth(scaling="standardised"), "* 8 deviations of depth from its mean, both of the crop")])
def test_a_level_is_explained_in_words(modality: Depth, words: str) -> None:
    assert words in modality.unit


RESAMPLED = {"crop": "centre", "resampling": "bilinear with antialiasing"}


@pytest.mark.parametrize("depths", [None, (0.5, 80.0)])
def test_the_spec_of_plain_depth_is_the_one_of_older_corpora(
        depths: tuple[float, float] | None) -> None:
    assert Depth(range=depths).preprocessing() == {
        "name": "depth", "range": depths and list(depths), **RESAMPLED}


def test_the_spec_of_other_depth_says_what_a_level_means() -> None:
    inverse, standardised = Depth(range=(0.5, 80.0), inverse=True), Depth(scaling="standardised")
    assert inverse.preprocessing() == {"name": "depth", "range": [0.5, 80.0], "inverse": True,
                                       "unit": inverse.unit, **RESAMPLED}
    assert standardised.preprocessing() == {
        "name": "depth", "range": None, "scaling": "standardised", "unit": standardised.unit,
        **RESAMPLED}


def test_scores_of_a_range_are_in_the_units_of_the_files() -> None:
    modality = Depth(range=(0.0, 65.535))  # a level is 1 mm
    truth = np.array([[[10_000, 20_000, 40_000, 100]]], np.uint16)
    found = np.array([[[12_000, 20_000, 30_000, 1_100]]], np.uint16)
    figures = modality.difference(found, truth)
    assert figures["abs_rel"] == pytest.approx((0.2 + 0 + 0.25) / 3)  # 0.1 m is below 1 %
    assert figures["rmse"] == pytest.approx(((4 + 0 + 100 + 1) / 4) ** 0.5)
    assert figures["delta1"] == pytest.approx(2 / 3)  # 12 / 10 passes, 40 / 30 does not


def test_scores_of_inverse_depth_are_still_those_of_depth() -> None:
    plain, inverse = Depth(range=(1.0, 9.0)), Depth(range=(1.0, 9.0), inverse=True)
    truth, found = np.array([[2.0, 4.0]], np.float32), np.array([[2.2, 6.0]], np.float32)
    expected = plain.difference(fitted(plain, found)[None], fitted(plain, truth)[None])
    figures = inverse.difference(fitted(inverse, found)[None], fitted(inverse, truth)[None])
    assert figures == pytest.approx(expected, rel=1e-3)
    assert figures["abs_rel"] == pytest.approx((0.1 + 0.5) / 2, rel=1e-3)


def test_pixels_without_a_measurement_count_in_no_score_of_inverse_depth() -> None:
    modality = Depth(range=(1.0, 80.0), inverse=True)
    truth, found = fitted(modality, np.array([[2.0, 0.0]], np.float32)), np.full(
        (1, 2), 65535, np.uint16)
    measured = modality.difference(found[None, :, :1], truth[None, :, :1])
    assert modality.difference(found[None], truth[None]) == measured
    assert measured["abs_rel"] == pytest.approx(0.5, rel=1e-3)  # 1 m found, 2 m true
    nothing = modality.difference(found[None, :, 1:], truth[None, :, 1:])
    assert nothing == {"abs_rel": 0.0, "rmse": 0.0, "delta1": 1.0}


def test_a_depth_of_zero_is_never_near() -> None:
    figures = Depth().difference(np.zeros((1, 1, 2), np.uint16),
                                 np.full((1, 1, 2), 30_000, np.uint16))
    assert figures["delta1"] == 0.0 and figures["abs_rel"] == 1.0


def test_standardised_depth_has_no_relative_error() -> None:
    truth = np.full((1, 2, 2), 32768, np.uint16)
    figures = Depth(scaling="standardised").difference(truth + np.uint16(4096), truth)
    assert figures == {"rmse": pytest.approx(4096 / 65535 * 16)}
