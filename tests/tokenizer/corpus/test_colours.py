"""Profiles become sRGB and broken ones count for nothing; the early route stays what it was."""
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from colour_profiles import grey_profile, ink_profile, rgb_profile
from corpus_files import encode, noise
from PIL import Image, ImageCms

from tokenizer.corpus import colours
from tokenizer.corpus.images import ORIENTATION_TAG, ROUTES, SRGB, STORED, TURBO, decode_image

SWAPPED = rgb_profile("green", "red")
"""A profile in which what is stored as red is green, and the other way round."""

LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BRIGHT = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]], np.uint8)


def swapped(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., [1, 0, 2]]


def far(found: np.ndarray, expected: np.ndarray) -> int:
    """The largest difference, in levels."""
    return int(np.abs(found.astype(int) - expected).max())


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_a_profile_is_converted_to_srgb(file_format: str) -> None:
    payload = encode(BRIGHT, file_format, icc_profile=SWAPPED, **LOSSLESS[file_format])
    assert far(decode_image(payload, SRGB), swapped(BRIGHT)) <= 1
    assert np.array_equal(decode_image(payload, STORED), BRIGHT)


def test_the_profile_of_a_jpeg_is_converted() -> None:
    red = np.full((16, 16, 3), (254, 0, 0), np.uint8)
    found = decode_image(encode(red, "JPEG", quality=95, icc_profile=SWAPPED), SRGB)
    assert far(found, swapped(red)) <= 3


def test_a_profile_in_many_segments_of_a_jpeg_is_put_together() -> None:
    long = SWAPPED + bytes(150_000)
    assert far(decode_image(encode(BRIGHT.repeat(16, 0).repeat(16, 1), "JPEG", quality=95,
                                   icc_profile=long), SRGB)[8, 8::16], swapped(BRIGHT)[0]) <= 3


@pytest.mark.parametrize("pixels", [noise(0, 64, 64), noise(0)[..., 0], noise(0, 8, 8)[..., :2]])
def test_files_that_say_they_are_srgb_keep_every_level(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    payload = encode(image, icc_profile=SRGB_PROFILE)
    assert np.array_equal(decode_image(payload, SRGB), decode_image(encode(image)))


def test_levels_are_converted_by_the_curve_of_the_profile() -> None:
    grey = np.array([[0, 64, 128, 255]], np.uint8)
    linear = grey / 255
    expected = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    for payload in (encode(grey, icc_profile=grey_profile(1.0)),
                    encode(grey, icc_profile=rgb_profile(gamma=1.0)),
                    encode(grey.astype(np.uint16) * 257, icc_profile=grey_profile(1.0)),
                    encode(grey[..., None].repeat(3, 2), icc_profile=rgb_profile(gamma=1.0))):
        found = decode_image(payload, SRGB)
        assert far(found, np.round(expected * 255)[..., None]) <= 1
        assert np.array_equal(decode_image(payload), grey[..., None].repeat(3, 2))


def test_alpha_lies_over_white_after_the_conversion() -> None:
    clear = np.zeros((1, 1, 4), np.uint8)
    rgba = np.concatenate([np.insert(BRIGHT, 3, 255, 2), clear], 1)
    found = decode_image(encode(rgba, icc_profile=SWAPPED), SRGB)
    assert far(found[:, :5], swapped(BRIGHT)) <= 1 and found[0, 5].tolist() == [255] * 3


def test_palettes_are_converted_and_their_transparent_entries_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    found = decode_image(encode(image, icc_profile=SWAPPED, transparency=2), SRGB)
    assert far(found, np.array([[[0, 255, 0], [255, 0, 0], [255, 255, 255]]])) <= 1


def test_cmyk_is_converted_by_its_profile() -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red = ink_profile((53, 80, 67))
    for file_format, options in (("JPEG", {"quality": 95}), ("TIFF", {})):
        payload = encode(inks, file_format, icc_profile=red, **options)
        assert far(decode_image(payload, SRGB)[8, 8], np.array([255, 0, 0])) <= 12
        assert decode_image(payload)[8, 8, 0] < 5


def without_adobe(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    assert jpeg[start + 4:start + 9] == b"Adobe"
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2:start + 4], "big"):]


def test_cmyk_is_inverted_where_adobe_s_mark_says_so_alone() -> None:
    adobe = encode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95)
    assert np.array_equal(decode_image(adobe, SRGB), decode_image(adobe, STORED))
    plain = without_adobe(adobe)
    assert np.array_equal(decode_image(plain, STORED), decode_image(adobe, STORED))
    inverted = Image.open(io.BytesIO(plain)).point([255 - level for level in range(256)] * 4)
    assert np.array_equal(decode_image(plain, SRGB), np.asarray(inverted.convert("RGB")))


BROKEN = {
    "cut": SWAPPED[:200], "short": SWAPPED[:-30], "zeros": bytes(500), "text": b"my colours",
    "empty": b"", "of grey": grey_profile(1.0), "of CMYK": ink_profile((50, 0, 0)),
    "great": SWAPPED + bytes(colours.MAX_PROFILE_BYTES)}


@pytest.mark.parametrize("name", BROKEN)
def test_a_profile_that_cannot_be_used_counts_for_nothing(name: str) -> None:
    payload = encode(BRIGHT, "TIFF", icc_profile=BROKEN[name])
    assert np.array_equal(decode_image(payload, SRGB), BRIGHT)


def test_damaged_profiles_give_pixels_and_raise_nothing() -> None:
    generator = np.random.default_rng(0)
    inks = Image.new("CMYK", (4, 4), (99, 0, 50, 7))
    for number in range(120):
        sound = [SWAPPED, ink_profile((53, 80, 67)), grey_profile(1.8)][number % 3]
        image = [Image.fromarray(BRIGHT), inks, Image.fromarray(BRIGHT[..., 0])][number % 3]
        damaged = bytearray(sound)
        for place in generator.integers(0, min(len(sound), 500), 4):
            damaged[place] = generator.integers(256)
        payload = encode(image, "TIFF", icc_profile=bytes(damaged))
        assert decode_image(payload, SRGB).shape == (image.height, image.width, 3)


def test_an_upright_image_has_its_profile_too() -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    found = decode_image(encode(BRIGHT, exif=exif, icc_profile=SWAPPED), SRGB)
    assert found.shape == (5, 1, 3) and far(found[:, 0], swapped(BRIGHT)[0]) <= 1


def test_turbo_converts_profiles_as_pillow_alone_does() -> None:
    for payload in (encode(noise(2), "JPEG", icc_profile=SWAPPED),
                    encode(noise(2)[..., 0], "JPEG", icc_profile=grey_profile(1.0)),
                    encode(Image.new("CMYK", (16, 16), (99, 0, 0, 9)), "JPEG",
                           icc_profile=ink_profile((53, 80, 67)))):
        assert np.array_equal(decode_image(payload, TURBO), decode_image(payload, SRGB))


@pytest.mark.parametrize("route", ROUTES)
def test_without_a_profile_every_route_gives_the_same_pixels(route: str) -> None:
    pixels = noise(1)
    for payload in (encode(pixels), encode(pixels, "JPEG"), encode(pixels[..., 0]),
                    encode(pixels[..., 0].astype(np.uint16) * 200),
                    encode(Image.fromarray(pixels).convert("P")),
                    encode(Image.fromarray(pixels).convert("CMYK"), "TIFF"),
                    encode(np.insert(pixels, 3, 77, 2)), encode(Image.new("LAB", (2, 2)), "TIFF")):
        assert np.array_equal(decode_image(payload, route), decode_image(payload))


def test_threads_that_share_a_profile_get_the_pixels_of_one() -> None:
    payloads = [encode(noise(seed, 40, 40), icc_profile=SWAPPED) for seed in range(24)]
    alone = [decode_image(payload, SRGB) for payload in payloads]
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(lambda payload: decode_image(payload, SRGB), payloads),
                                   alone, strict=True):
            assert np.array_equal(found, expected)
