"""The route turbo decodes and refuses as Pillow does, and resamples within two levels of it."""
import importlib.util

import numpy as np
import pytest
import torch
from colour_profiles import rgb_profile
from corpus_files import encode, noise
from PIL import Image, ImageCms

from tokenizer.corpus.images import (
    ORIENTATION_TAG,
    SRGB,
    TURBO,
    Crop,
    UnreadableImage,
    decode_image,
    resize,
)
from tokenizer.corpus.modalities import RGB, Edges, LowRes


def smooth(height: int, width: int) -> np.ndarray:
    """Blurred noise, ``(height, width, 3)`` uint8, as photographs rather are."""
    small = Image.fromarray(noise(3, height // 6 + 2, width // 6 + 2))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("options", [
    {}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": "4:1:1"},
    {"quality": 100}, {"quality": 5}, {"optimize": True}, {"keep_rgb": True},
    {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (9, 17), (64, 64), (131, 77)])
def test_sound_jpegs_have_the_pixels_that_pillow_gives(shape: tuple[int, int],
                                                       options: dict[str, object]) -> None:
    payload = encode(smooth(*shape), "JPEG", **options)
    assert np.array_equal(decode_image(payload, TURBO), decode_image(payload, SRGB))


def test_upright_images_are_those_of_pillow() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        payload = encode(smooth(20, 30), "JPEG", exif=exif)
        assert np.array_equal(decode_image(payload, TURBO), decode_image(payload, SRGB))


def test_profiles_of_srgb_and_broken_ones_are_left_out_as_by_pillow() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, srgb[:200], rgb_profile(gamma=1.0)):
        payload = encode(smooth(20, 30), "JPEG", icc_profile=profile)
        assert np.array_equal(decode_image(payload, TURBO), decode_image(payload, SRGB))


def test_damaged_jpegs_are_read_or_refused_as_by_pillow() -> None:
    generator = np.random.default_rng(0)
    whole = [encode(smooth(40, 40), "JPEG", progressive=number > 0) for number in range(2)]
    refused = 0
    for number in range(200):
        damaged = bytearray(whole[number % 2])
        for place in generator.integers(0, len(damaged), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        found = []
        for route in (SRGB, TURBO):
            try:
                found.append(decode_image(bytes(damaged), route))
            except UnreadableImage as error:
                found.append(np.array(str(error)))
        assert np.array_equal(*found), number
        refused += found[0].ndim == 0
    assert 10 < refused < 190


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (200, 300)])
def test_resampling_is_within_two_levels_of_pillow(size: tuple[int, int]) -> None:
    pixels = smooth(120, 160)
    for crop in (Crop(left=0, top=0, width=160, height=120),
                 Crop(left=7, top=11, width=99, height=64, flipped=True)):
        found, expected = (resize(pixels, crop, size, kind) for kind in ("torch", "smooth"))
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        assert np.abs(found.astype(int) - expected).max() <= 2


def test_resampling_depends_on_no_number_of_threads_and_leaves_it_alone(
        monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, crop = smooth(480, 640), Crop(left=0, top=0, width=640, height=480)
    found, num_threads = [], torch.get_num_threads()
    for asked in (1, 4):
        torch.set_num_threads(asked)
        with monkeypatch.context() as patch:
            patch.delattr(torch, "set_num_threads")
            found.append(resize(pixels, crop, (256, 256), "torch"))
        assert torch.get_num_threads() == asked
        torch.set_num_threads(num_threads)
    assert np.array_equal(*found)


def test_what_is_computed_from_images_takes_the_route_too() -> None:
    raw = smooth(50, 70)
    crop = Crop(left=0, top=0, width=50, height=50)
    fast = RGB(route=TURBO).fit(raw, crop, (16, 16))
    assert np.array_equal(fast, resize(raw, crop, (16, 16), "torch"))
    assert np.array_equal(LowRes(route=TURBO).resample(raw, crop, (16, 16)), fast)
    assert np.array_equal(Edges(route=TURBO).resample(raw, crop, (16, 16)), fast)


def test_without_simplejpeg_the_route_is_refused_with_the_remedy(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="route turbo needs simplejpeg: pip install 'img2tokens"):
        RGB(route=TURBO)
    RGB(route=SRGB)
