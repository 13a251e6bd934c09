"""Files of every format and mode decode right; damaged ones are refused with the reason."""
import numpy as np
import pytest
from corpus_files import broken_files, encode, noise, png_chunk, raw_png
from PIL import Image, ImageFile

from tokenizer.corpus import images, limits
from tokenizer.corpus.images import Crop, UnreadableImage, centre_crop, decode_image, resize

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
RED = np.array([[[255, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 3], np.uint8)
"""Two rows, three columns, red in the upper left corner."""


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_lossless_formats_give_back_every_pixel(file_format: str) -> None:
    pixels = noise(1)
    decoded = decode_image(encode(pixels, file_format, **LOSSLESS[file_format]))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)


def test_jpeg_decodes_close_to_the_original() -> None:
    flat = np.full((24, 32, 3), (200, 90, 30), np.uint8)
    decoded = decode_image(encode(flat, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - flat).max() <= 2


def test_first_frame_of_an_animation_is_read() -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    for file_format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        animation = encode(first, file_format, save_all=True, append_images=[second], **options)
        assert decode_image(animation)[0, 0].tolist() == [255, 0, 0]


def test_grey_images_repeat_their_level_in_three_channels() -> None:
    grey = noise(2)[..., 0]
    for file_format in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(decode_image(encode(grey, file_format)), grey[..., None].repeat(3, 2))
    assert decode_image(encode(grey, "JPEG")).shape == (24, 32, 3)


def test_one_bit_images_are_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    assert decode_image(encode(Image.fromarray(bits)))[..., 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut(file_format: str) -> None:
    levels = np.array([[0, 128, 129], [32768, 65406, 65535]], np.uint16)
    decoded = decode_image(encode(levels, file_format))
    assert decoded[..., 0].tolist() == np.round(levels / 257).tolist()


def test_32_bit_grey_within_16_bits_is_scaled_like_16_bits() -> None:
    levels = np.array([[0, 65535, 257]], np.int32)
    assert decode_image(encode(levels, "TIFF"))[..., 0].tolist() == [[0, 255, 1]]


@pytest.mark.parametrize(("levels", "expected"), [
    ([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255])])
def test_float_grey_runs_to_1_or_to_255(levels: list[float], expected: list[int]) -> None:
    decoded = decode_image(encode(np.array([levels], np.float32), "TIFF"))
    assert decoded[0, :, 0].tolist() == expected


@pytest.mark.parametrize("levels", [[-1.0, 0.5], [0.0, 300.0], [0.0, np.nan], [np.inf, 0.0]])
def test_grey_levels_without_agreed_meaning_are_refused(levels: list[float]) -> None:
    with pytest.raises(UnreadableImage, match="grey levels"):
        decode_image(encode(np.array([levels], np.float32), "TIFF"))


def test_palette_images_give_their_colours() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    for file_format in ("PNG", "GIF", "BMP", "TIFF"):
        assert decode_image(encode(image, file_format)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparent_palette_entries_turn_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    decoded = decode_image(encode(image, transparency=1))
    assert decoded.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_alpha_is_laid_over_white() -> None:
    rgba = np.array([[[0, 0, 0, 0], [100, 0, 0, 255], [0, 0, 0, 128]]], np.uint8)
    for file_format in ("PNG", "TIFF"):
        decoded = decode_image(encode(rgba, file_format))
        assert decoded.tolist() == [[[255] * 3, [100, 0, 0], [127] * 3]]
    grey, alpha = (Image.fromarray(np.array([row], np.uint8)) for row in ([0, 90], [0, 255]))
    with_alpha = Image.merge("LA", (grey, alpha))
    assert decode_image(encode(with_alpha)).tolist() == [[[255] * 3, [90] * 3]]


def test_a_transparent_colour_of_grey_and_rgb_files_turns_white() -> None:
    grey = raw_png(2, 1, 8, 0, [b"\5\6"], png_chunk(b"tRNS", b"\0\5"))
    assert decode_image(grey).tolist() == [[[255] * 3, [6] * 3]]
    colour = raw_png(2, 1, 8, 2, [b"\1\2\3\4\5\6"], png_chunk(b"tRNS", b"\0\1\0\2\0\3"))
    assert decode_image(colour).tolist() == [[[255] * 3, [4, 5, 6]]]


def test_cmyk_jpeg_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    red, green, blue = decode_image(encode(cyan, "JPEG", quality=95))[4, 4]
    assert red < 5 and green > 250 and blue > 250


def test_lab_tiff_becomes_rgb() -> None:
    red = decode_image(encode(Image.new("LAB", (2, 2), (137, 208, 195)), "TIFF"))[0, 0]
    assert red[0] > 240 and red[1:].max() < 20


@pytest.mark.parametrize(("orientation", "corner"), [
    (1, (0, 0)), (2, (0, 2)), (3, (1, 2)), (4, (1, 0)),
    (5, (0, 0)), (6, (0, 1)), (7, (2, 1)), (8, (2, 0))])
def test_every_exif_orientation_is_turned_upright(orientation: int,
                                                  corner: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = orientation
    for file_format in ("PNG", "TIFF", "WEBP"):
        decoded = decode_image(encode(RED, file_format, exif=exif, **LOSSLESS[file_format]))
        assert decoded.shape == ((2, 3, 3) if orientation < 5 else (3, 2, 3))
        assert np.argwhere(decoded[..., 0] == 255).tolist() == [list(corner)]


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_does_not_make_an_image_unreadable() -> None:
    jpeg = encode(noise(3), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(jpeg).shape == (24, 32, 3)


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_are_refused_with_the_reason(name: str) -> None:
    payload, reason = broken_files()[name]
    with pytest.raises(UnreadableImage, match=reason):
        decode_image(payload)


def test_there_are_twelve_kinds_of_broken_files() -> None:
    assert len(broken_files()) == 12


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore")
def test_no_file_cut_short_passes_for_a_whole_one(file_format: str) -> None:
    whole = encode(noise(4, 16, 16), file_format)
    for length in [*range(0, len(whole) - 2, 7), len(whole) - 3]:
        with pytest.raises(UnreadableImage):
            decode_image(whole[:length])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_raise_nothing_but_unreadable_image(file_format: str) -> None:
    whole = encode(noise(5, 12, 12), file_format)
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 300), 3):
            damaged[place] = generator.integers(256)
        try:
            assert decode_image(bytes(damaged)).shape[2] == 3
        except UnreadableImage as error:
            assert len(str(error)) > 10


def test_every_png_chunk_is_checked() -> None:
    damaged = raw_png(1, 1, 8, 0, [b"\5"], png_chunk(b"tEXt", b"a\0b")).replace(b"a\0b", b"a\0c")
    with pytest.raises(UnreadableImage, match="'tEXt' at byte 33 has a wrong checksum"):
        decode_image(damaged)


def test_a_thumbnail_within_a_jpeg_is_not_taken_for_its_end() -> None:
    thumbnail = encode(noise(6, 8, 8), "JPEG")
    jpeg = encode(noise(6), "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert decode_image(jpeg).shape == (24, 32, 3)
    with pytest.raises(UnreadableImage, match="without an end marker"):
        decode_image(jpeg[:-10] + bytes(500))


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    jpeg = encode(noise(7), "JPEG", progressive=True)
    assert np.array_equal(decode_image(jpeg + bytes(1000)), decode_image(jpeg))


def test_the_pixel_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIXELS", 24 * 32)
    assert decode_image(encode(noise(8))).shape == (24, 32, 3)
    with pytest.raises(UnreadableImage, match="32 x 25 pixels; at most 768"):
        decode_image(encode(noise(8, 25)))


def test_truncated_files_are_never_loaded() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(("height", "width", "size", "expected"), [
    (10, 10, (4, 4), (0, 0, 10, 10)), (10, 20, (4, 4), (5, 0, 10, 10)),
    (20, 11, (4, 4), (0, 4, 11, 11)), (10, 20, (4, 8), (0, 0, 20, 10)),
    (30, 20, (4, 8), (0, 10, 20, 10)), (1, 1, (64, 64), (0, 0, 1, 1)),
    (1, 9, (8, 2), (4, 0, 1, 1)), (7, 3, (256, 256), (0, 2, 3, 3))])
def test_centre_crop_is_the_largest_centred_box(height: int, width: int, size: tuple[int, int],
                                                expected: tuple[int, int, int, int]) -> None:
    crop = centre_crop(height, width, size)
    assert (crop.left, crop.top, crop.width, crop.height) == expected


def test_a_crop_of_the_target_size_is_cut_out_unchanged() -> None:
    pixels = noise(9)
    crop = Crop(left=3, top=5, width=8, height=6)
    for kind in ("smooth", "nearest"):
        assert np.array_equal(resize(pixels, crop, (6, 8), kind), pixels[5:11, 3:11])


def test_resampling_sees_nothing_outside_the_crop() -> None:
    pixels = noise(10)
    crop = Crop(left=4, top=4, width=12, height=12)
    inside = resize(pixels[4:16, 4:16], Crop(left=0, top=0, width=12, height=12), (5, 5))
    assert np.array_equal(resize(pixels, crop, (5, 5)), inside)


def test_shrinking_averages_all_pixels() -> None:
    stripes = np.zeros((32, 32), np.float32)
    stripes[::2] = 1.0
    shrunk = resize(stripes, centre_crop(32, 32, (4, 4)), (4, 4))
    assert shrunk.dtype == np.float32
    assert np.allclose(shrunk, 0.5, atol=0.02)


def test_nearest_takes_the_pixel_under_each_centre() -> None:
    row = np.arange(6, dtype=np.uint16)[None]
    assert resize(row, Crop(left=0, top=0, width=6, height=1), (1, 3), "nearest").tolist() == [
        [1, 3, 5]]
    assert resize(row, Crop(left=2, top=0, width=2, height=1), (1, 4), "nearest").tolist() == [
        [2, 2, 3, 3]]


def test_a_flipped_crop_is_the_mirror_image() -> None:
    pixels = noise(11)
    crop = Crop(left=0, top=0, width=30, height=20)
    mirrored = Crop(left=0, top=0, width=30, height=20, flipped=True)
    for kind in ("smooth", "nearest"):
        flipped = resize(pixels, mirrored, (10, 10), kind)
        assert np.array_equal(flipped, resize(pixels, crop, (10, 10), kind)[:, ::-1])
        assert flipped.flags.c_contiguous


def test_crops_outside_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="does not lie within an image of 32 x 24 pixels"):
        resize(noise(12), Crop(left=30, top=0, width=3, height=3), (3, 3))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Crop(left=0, top=0, width=0, height=3)
