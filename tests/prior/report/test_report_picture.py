"""The picture of an evaluation: pictures in blocks under captions, and outlines of histograms."""
import numpy as np
import pytest
from drawn_codes import spec_of

from prior.report.diversity import NUM_BINS
from prior.report.picture import (
    CAPTION,
    COLOURS,
    HEIGHT,
    MARGIN,
    PADDING,
    WIDTH,
    Column,
    draw_grid,
    draw_histogram,
    draw_sheet,
    pictures_of,
)


def column(count: int, size: tuple[int, int] = (96, 96)) -> Column:
    """Pictures of one grey each."""
    pictures = np.stack([np.full((*size, 3), 10 * item + 5, np.uint8) for item in range(count)])
    return Column([f"k{item}" for item in range(count)], pictures)


@pytest.mark.parametrize(("count", "num_columns"), [(8, 2), (5, 3), (1, 1), (3, 9)])
def test_every_picture_stands_under_its_caption_in_its_block(count: int, num_columns: int) -> None:
    columns = [column(count) for _ in range(num_columns)]
    sheet = draw_grid(columns)
    across, down = 96 + PADDING, 96 + CAPTION + PADDING
    num_rows = -(-count // max(1, WIDTH // (across * num_columns)))
    for item in range(count):
        top = PADDING + CAPTION + item % num_rows * down
        for place in range(num_columns):
            left = PADDING + (item // num_rows * num_columns + place) * across
            assert (sheet[top:top + 96, left:left + 96] == 10 * item + 5).all()
            assert (sheet[top - CAPTION:top, left:left + 96] < 128).any()  # some ink


def test_small_pictures_are_enlarged_and_others_brought_to_their_size() -> None:
    sheet = draw_grid([column(1, (12, 8)), column(1, (24, 24))])
    assert sheet.shape[0] == 12 * 12 + CAPTION + 2 * PADDING
    top = PADDING + CAPTION
    assert (sheet[top:top + 144, PADDING + 100:PADDING + 196] == 5).all()


def test_captions_that_no_font_has_or_that_are_too_long_are_shown_as_far_as_can_be() -> None:
    long = Column(["\u4e2d\u6587/" * 80], column(1).pictures)
    assert draw_grid([long]).shape == draw_grid([column(1)]).shape


def test_the_end_of_a_long_caption_is_kept() -> None:
    sheets = [draw_grid([Column([f"{'long/' * 40} {share}"], column(1).pictures)])
              for share in (0.31, 0.87)]
    assert (sheets[0] != sheets[1]).any()


def test_histograms_lie_where_their_shares_are() -> None:
    picture = draw_histogram({"samples": np.full(9, 0.999), "held-out rows": np.full(4, 0.001)})
    assert picture.shape == (HEIGHT, WIDTH, 3)
    inside = picture[MARGIN + 4:HEIGHT - MARGIN - 4]
    for colour, is_right in zip(COLOURS, (True, False), strict=True):
        found = np.flatnonzero((inside == colour).all(-1).any(0))
        bin_width = (WIDTH - 2 * MARGIN) / NUM_BINS
        expected = WIDTH - MARGIN - bin_width if is_right else MARGIN + bin_width
        assert np.abs(found - expected).min() <= 1


def test_without_shares_there_is_no_histogram() -> None:
    whole = draw_sheet([column(2)], {"samples": np.array([0.5])})
    alone = draw_sheet([column(2)], {})
    assert whole.shape[0] == alone.shape[0] + HEIGHT
    np.testing.assert_array_equal(whole[:alone.shape[0], :alone.shape[1]], alone)


def test_of_several_codes_a_cell_the_first_are_shown_where_nothing_decodes() -> None:
    codes = np.random.default_rng(0).integers(0, 8, (2, 2, 3, 2))
    both = pictures_of(spec_of("image", depth=2), None, codes)
    np.testing.assert_array_equal(both, pictures_of(spec_of("image"), None, codes[:, 0]))
    assert both.shape == (2, 144, 96, 3)
