"""Depth and label maps come back as they were stored, whatever file holds them."""
import io

import numpy as np
import pytest
from corpus_files import encode, noise, png_chunk, raw_png
from PIL import Image

from tokenizer.corpus import images, limits, maps
from tokenizer.corpus.images import UnreadableImage
from tokenizer.corpus.maps import decode_depth, decode_labels, encode_depth, encode_labels

DEPTH = np.array([[0.5, 1e-3, -7.25], [6000.0, 3.0e8, 0.0]], np.float32)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("payload", [
    npy(DEPTH), npy(DEPTH.astype(">f4")), npy(np.asfortranarray(DEPTH)), npy(DEPTH[None]),
    npy(DEPTH[..., None]), encode(DEPTH, "TIFF"), encode(DEPTH.astype("<f4").view(np.uint8).reshape(
        2, 3, 4))], ids=["npy", "big-endian", "fortran", "1HW", "HW1", "tiff", "packed"])
def test_float_depth_is_exact(payload: bytes) -> None:
    depth = decode_depth(payload)
    assert depth.dtype == np.float32
    assert np.array_equal(depth, DEPTH)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64, np.float16])
def test_npy_depth_of_any_number_type_becomes_float32(dtype: type) -> None:
    values = np.array([[0, 1, 200]], dtype)
    assert decode_depth(npy(values)).tolist() == [[0, 1, 200]]


def test_integer_depth_gives_its_levels() -> None:
    levels = np.array([[0, 255, 256, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        assert decode_depth(encode(levels, file_format)).tolist() == levels.tolist()
    assert decode_depth(encode(levels.astype(np.uint8))).tolist() == [[0, 255, 0, 255]]


def test_grey_depth_stored_as_colour_is_read_as_grey() -> None:
    grey = noise(0)[..., :1]
    opaque = np.full_like(grey, 255)
    for channels in ([grey] * 3, [grey] * 3 + [opaque]):
        assert np.array_equal(decode_depth(encode(np.concatenate(channels, 2))), grey[..., 0])


def test_a_photo_is_no_map() -> None:
    with pytest.raises(UnreadableImage, match=r"colour picture \(mode RGB\).* a depth map"):
        decode_depth(encode(noise(1)))
    with pytest.raises(UnreadableImage, match=r"colour picture .* a map of class ids"):
        decode_labels(encode(noise(1)))


def test_a_picture_of_16_bits_with_alpha_is_not_taken_for_packed_floats() -> None:
    payload = raw_png(2, 1, 16, 6, [b"\x0b\xb8\x0f\xa0\x13\x88\x01\x2c" * 2])
    with pytest.raises(UnreadableImage, match="RGBA of 16 bits a channel where a depth map"):
        decode_depth(payload)


def test_depth_that_is_not_finite_is_counted() -> None:
    with pytest.raises(UnreadableImage, match="2 of 4 depth values are not finite"):
        decode_depth(npy(np.array([[np.nan, 1], [np.inf, 2]])))


@pytest.mark.parametrize(("payload", "reason"), [
    (npy(DEPTH)[:-1], "23 bytes of values.* takes 24"), (npy(DEPTH) + b"\0", "25 bytes of values"),
    (npy(DEPTH)[:20], "damaged .npy"), (npy(np.zeros(5)), r"shape \(5,\)"),
    (npy(np.zeros((2, 2, 3))), "shape"), (npy(np.zeros((0, 4))), "shape"),
    (npy(np.array([["a"]])), "<U1"), (npy(np.zeros((2, 2), complex)), "complex128")])
def test_damaged_npy_files_say_what_is_wrong(payload: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode_depth(payload)


def test_npy_files_are_never_unpickled() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[print]], object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="numbers of shape"):
        decode_depth(buffer.getvalue())


def test_an_npy_file_that_claims_more_than_it_holds_takes_no_memory() -> None:
    huge = npy(DEPTH).replace(b"(2, 3)", b"(20000, 30000)")
    with pytest.raises(UnreadableImage):
        decode_depth(huge)


def test_16_bit_labels_are_exact() -> None:
    labels = np.array([[0, 300, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        assert decode_labels(encode(labels, file_format)).tolist() == labels.tolist()


def test_palette_labels_are_indices_not_colours() -> None:
    image = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    image.putpalette(noise(2, 16, 16).tobytes())
    for file_format in ("PNG", "BMP", "TIFF"):
        assert decode_labels(encode(image, file_format)).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(("bits", "row", "expected"), [
    (1, b"\xa0", [1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x0f\x5a", [0, 15, 5, 10])])
def test_labels_of_few_bits_are_not_stretched(bits: int, row: bytes, expected: list[int]) -> None:
    grey = raw_png(len(expected), 1, bits, 0, [row])
    palette = raw_png(len(expected), 1, bits, 3, [row], png_chunk(b"PLTE", bytes(3 * 2 ** bits)))
    assert decode_labels(grey).tolist() == [expected]
    assert decode_labels(palette).tolist() == [expected]


def test_ids_beyond_16_bits_and_fractions_are_refused() -> None:
    for values in (np.array([[-1, 3]], np.int32), np.array([[70_000]], np.int32),
                   np.array([[0.5]], np.float32)):
        with pytest.raises(UnreadableImage, match="whole numbers from 0 to 65535"):
            decode_labels(encode(values, "TIFF"))


def test_16_bit_colour_is_refused_because_half_of_it_would_be_lost() -> None:
    with pytest.raises(UnreadableImage, match="16 bits a channel"):
        decode_labels(raw_png(1, 1, 16, 2, [b"\0\1\0\1\0\1"]))


def test_maps_are_turned_upright_like_their_images() -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = 6
    assert decode_labels(encode(np.array([[1, 2]], np.uint8), exif=exif)).tolist() == [[1], [2]]


def test_truncated_maps_are_refused() -> None:
    payload = encode(noise(3)[..., 0])[:-20]
    for decode in (decode_depth, decode_labels):
        with pytest.raises(UnreadableImage, match="truncated PNG"):
            decode(payload)


def test_written_maps_are_read_back_exactly() -> None:
    generator = np.random.default_rng(0)
    depth = generator.integers(0, 65536, (7, 9), np.uint16)
    assert np.array_equal(decode_depth(encode_depth(depth)), depth)
    for dtype in (np.uint8, np.uint16):
        labels = generator.integers(0, np.iinfo(dtype).max + 1, (7, 9)).astype(dtype)
        assert np.array_equal(decode_labels(encode_labels(labels)), labels)


def test_written_labels_show_their_classes_as_colours() -> None:
    image = Image.open(io.BytesIO(encode_labels(np.array([[0, 1]], np.uint8))))
    assert image.mode == "P"
    first, second = np.array(image.convert("RGB"))[0]
    assert np.abs(first.astype(int) - second).max() > 30


def test_the_pixel_limit_holds_for_npy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PIXELS", 5)
    with pytest.raises(UnreadableImage, match="3 x 2 pixels; at most 5"):
        maps.decode_depth(npy(DEPTH))
