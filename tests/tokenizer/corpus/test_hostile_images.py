"""Images made to take long, to take memory or to mislead: refused with a reason, or read right."""
import io
import struct

import numpy as np
import pytest
from corpus_files import encode, noise, png_chunk, raw_png
from PIL import Image, ImageFile

from tokenizer.corpus import images, limits
from tokenizer.corpus.crops import crop_rule
from tokenizer.corpus.images import ROUTES, UnreadableImage, decode_image
from tokenizer.corpus.maps import decode_depth, decode_labels
from tokenizer.corpus.modalities import RGB


def npy(header: bytes, values: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + values


def test_a_progressive_jpeg_cut_at_any_byte_is_refused() -> None:
    whole = encode(noise(0), "JPEG", progressive=True, quality=60, icc_profile=b"x" * 40)
    for length in range(len(whole) - 1):
        with pytest.raises(UnreadableImage):
            decode_image(whole[:length])
    assert decode_image(whole).shape == (24, 32, 3)


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    whole = encode(noise(1), "JPEG", progressive=True)
    scan = whole.rindex(b"\xff\xda")
    limit = images.MAX_SCANS - whole.count(b"\xff\xda")
    assert decode_image(whole[:-2] + whole[scan:-2] * limit + whole[-2:]).shape == (24, 32, 3)
    with pytest.raises(UnreadableImage, match="more than 100 scans, made to take long"):
        decode_image(whole[:-2] + whole[scan:-2] * (limit + 1) + whole[-2:])


@pytest.mark.parametrize("shape", [(1, 65_500), (65_500, 1)])
@pytest.mark.parametrize("route", ROUTES)
def test_a_line_of_pixels_gives_crops_of_every_rule(shape: tuple[int, int], route: str) -> None:
    row = (np.arange(65_500) // 256).astype(np.uint8).reshape(*shape, 1).repeat(3, 2)
    modality = RGB(route=route)
    for file_format in ("PNG", "JPEG"):
        raw = modality.read(encode(row, file_format), "")
        assert raw.shape == (*shape, 3)
        for rule in ("centre", "ten-crop", "random:3"):
            for crop in crop_rule(rule).crops(*shape, (16, 24), "key"):
                pixels = modality.fit(raw, crop, (16, 24))
                inside = raw[crop.top:crop.top + crop.height, crop.left:crop.left + crop.width]
                assert pixels.shape == (16, 24, 3)
                assert inside.min() <= pixels.min() <= pixels.max() <= inside.max()


@pytest.mark.parametrize(("file_format", "options"), [
    ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("JPEG", {})])
def test_a_bomb_of_every_format_is_refused_by_its_header(
        file_format: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(np.zeros((10, 10, 3), np.uint8), file_format, **options)
    monkeypatch.setattr(limits, "MAX_PIXELS", 99)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableImage, match="10 x 10 pixels; at most 99 pixels are decoded"):
        decode_image(bomb)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_a_bomb_in_a_chunk_of_a_png_is_refused(kind: bytes) -> None:
    import zlib
    bomb = png_chunk(kind, b"name\0\0" + zlib.compress(bytes(8 << 20)))
    with pytest.raises(UnreadableImage, match="(?i)too large"):
        decode_image(raw_png(1, 1, 8, 0, [b"\5"], bomb))


def test_too_little_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise MemoryError
    monkeypatch.setattr(images, "to_rgb", fail)
    with pytest.raises(UnreadableImage, match="too little memory to decode it: make it smaller"):
        decode_image(encode(noise(2)))


def test_an_image_of_several_is_read_as_its_first() -> None:
    for file_format, options in (("MPO", {"quality": 95}), ("TIFF", {})):
        first, second = (Image.fromarray(noise(seed)) for seed in (3, 4))
        several = encode(first, file_format, save_all=True, append_images=[second], **options)
        alone = encode(first, "JPEG" if file_format == "MPO" else file_format, **options)
        assert np.array_equal(decode_image(several), decode_image(alone))


def test_a_frame_that_covers_a_part_lies_on_the_whole_canvas() -> None:
    buffer = io.BytesIO()
    dot = Image.new("P", (2, 2), 1)
    dot.putpalette([0, 0, 0, 250, 0, 0])
    dot.save(buffer, "GIF")
    gif = bytearray(buffer.getvalue())
    gif[6:10] = struct.pack("<HH", 5, 4)  # the canvas grows, the frame does not
    assert decode_image(bytes(gif)).shape == (4, 5, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exif", [
    b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\xff" * 99,
    b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x09\0\0\0\0\0\0",
    b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\2\x36\0\0\0\0\0\0\0"])
def test_broken_exif_leaves_the_pixels_as_they_lie(exif: bytes) -> None:
    pixels = noise(5)
    plain = decode_image(encode(pixels, "JPEG"))
    assert np.array_equal(decode_image(encode(pixels, "JPEG", exif=exif)), plain)
    assert np.array_equal(decode_image(encode(pixels, "PNG", exif=exif)), pixels)


@pytest.mark.parametrize("header", [
    b"(", b"((((" * 900, b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,", b"\xff\xfe",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 2)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (900000, 900000)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 2)}",
    b"__import__('os').abort()"])
def test_hostile_headers_of_npy_depth_are_refused(header: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode_depth(npy(header))


def test_a_png_map_whose_header_is_not_first_is_refused() -> None:
    sound = raw_png(2, 1, 8, 0, [b"\5\6"])
    text = png_chunk(b"tEXt", b"\0" * 20)
    with pytest.raises(UnreadableImage):
        decode_labels(sound[:8] + text + sound[8:])
    assert decode_labels(sound).tolist() == [[5, 6]]
