"""Pictures: tiles lie where they should, colours tell apart what differs."""
import io

import numpy as np
import pytest
from PIL import Image

from tokenizer import pictures


def test_tiles_are_placed_row_by_row_with_padding() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 5, 3), np.uint8)
    sheet = pictures.tile(images, columns=2, padding=1)
    assert sheet.shape == (2 * 5 + 1, 2 * 6 + 1, 3)
    assert (sheet[1:5, 1:6] == 0).all() and (sheet[1:5, 7:12] == 1).all()
    assert (sheet[6:10, 1:6] == 2).all() and (sheet[6:10, 7:12] == 255).all()


def test_a_png_holds_its_texts_and_is_the_plain_one_without() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    assert pictures.png_bytes(image) == buffer.getvalue()
    found = Image.open(io.BytesIO(pictures.png_bytes(image, {"Description": "ein Häuschen"})))
    assert found.text == {"Description": "ein Häuschen"}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.asarray(found), image)


def test_enlarging_repeats_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = pictures.enlarge(image, 3)
    assert large.shape == (6, 6, 3) and (large[:3, 3:] == image[0, 1]).all()


def test_png_bytes_hold_the_picture(tmp_path) -> None:  # type: ignore[no-untyped-def]
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures.png_bytes(image)))), image)
    pictures.save_png(str(tmp_path / "a.png"), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_the_first_hundred_labels_have_different_colours() -> None:
    colours = pictures.colour_labels(np.arange(100).reshape(10, 10))
    assert colours.shape == (10, 10, 3) and colours.dtype == np.uint8
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 100


def test_depth_grows_lighter() -> None:
    colours = pictures.colour_depth(np.linspace(0, 65535, 9).astype(np.uint16)[None])
    lightness = colours[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()
    assert tuple(colours[0, 0]) == pictures.DEPTH_STOPS[0]


@pytest.mark.parametrize("codebook_size", [16, 1024])
def test_equal_codes_are_equal_cells(codebook_size: int) -> None:
    codes = np.array([[1, 2], [3, 1]])
    picture = pictures.colour_codes(codes, codebook_size, (8, 12))
    assert picture.shape == (8, 12, 3)
    assert (picture[:4, :6] == picture[4:, 6:]).all()
    assert (picture[0, 0] != picture[0, 11]).any() and (picture[0, 0] != picture[7, 0]).any()
