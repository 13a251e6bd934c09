"""Which cells a hole asked for in pixels covers."""
import numpy as np
import pytest

from prior.masks import boxes_hole, codes_hole, paint_hole, picture_hole, rows_hole

SIZE, GRID = (12, 16), (3, 4)


def test_a_box_draws_every_cell_that_it_touches() -> None:
    hole = boxes_hole([(3, 7, 2, 2)], SIZE, GRID)
    assert hole.tolist() == [[False, True, True, False], [False, True, True, False], [False] * 4]


def test_several_boxes_are_drawn_together() -> None:
    hole = boxes_hole([(0, 0, 1, 1), (11, 15, 1, 1)], SIZE, GRID)
    assert np.argwhere(hole).tolist() == [[0, 0], [2, 3]]


@pytest.mark.parametrize("box", [(0, 0, 0, 4), (0, 0, 13, 4), (10, 0, 4, 4), (0, 14, 1, 3)])
def test_a_box_outside_or_empty_is_refused_with_the_size(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="within the picture of 12 x 16 pixels and is not empty"):
        boxes_hole([box], SIZE, GRID)


def test_a_picture_of_any_size_is_stretched_over_the_grid() -> None:
    picture = np.zeros((7, 9), np.uint8)
    picture[6, 0] = 255
    assert np.argwhere(picture_hole(picture, GRID)).tolist() == [[2, 0]]
    assert picture_hole(np.ones((3, 4)), GRID).all()
    with pytest.raises(ValueError, match="a pixel for each of 3 x 4 cells, got 2 x 9 pixels"):
        picture_hole(picture[:2], GRID)


@pytest.mark.parametrize(("keep", "kept"), [(0.5, 2), (0.01, 1), (0.99, 2)])
def test_the_first_rows_are_kept_at_least_one_and_not_all(keep: float, kept: int) -> None:
    hole = rows_hole(keep, GRID)
    assert hole.shape == GRID and not hole[:kept].any() and hole[kept:].all()


def test_of_one_row_of_cells_none_can_be_kept() -> None:
    with pytest.raises(ValueError, match="a grid of 1 x 4 cells has one row.*give a hole"):
        rows_hole(0.5, (1, 4))


def test_all_codes_of_a_cell_share_its_hole() -> None:
    hole = np.array([[True, False]])
    assert codes_hole(hole, 3).tolist() == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match="the hole is empty"):
        codes_hole(~hole & hole, 3)


def test_a_hole_is_painted_grey_and_the_rest_stays() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)
    hole = boxes_hole([(4, 4, 4, 8)], SIZE, GRID)
    painted = paint_hole(pictures, hole)
    assert (painted[:, 4:8, 4:12] == 128).all() and painted.dtype == np.uint8
    painted[:, 4:8, 4:12] = pictures[:, 4:8, 4:12]
    np.testing.assert_array_equal(painted, pictures)
