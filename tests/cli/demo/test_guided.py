"""Figures of the page of guidance, on tables and curves that are known."""
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.demo.guided import (
    GuidedImage,
    cells,
    ends,
    num_closest,
    num_rises,
    spread,
    write_pictures,
)


def test_a_picture_counts_only_if_its_own_prompt_is_nearer_than_every_other() -> None:
    assert num_closest(np.eye(4)) == 4
    assert num_closest(np.array([[0.5, 0.4, 0.1], [0.7, 0.6, 0.1], [0.3, 0.3, 0.3]])) == 1


@pytest.mark.parametrize(("values", "rises"), [
    (range(100), 4), (range(100, 0, -1), 0), ([0, 1, 2, 1.5, 3], 3), ([1.0] * 10, 0)])
def test_rises_are_counted_from_part_to_part(values: list[float], rises: int) -> None:
    assert num_rises(values) == rises


def test_ends_are_means_of_tenths() -> None:
    assert ends(list(range(20))) == (0.5, 18.5)
    assert ends([3.0]) == (3.0, 3.0)


def test_the_first_and_the_last_are_among_those_spread() -> None:
    assert spread(range(0, 220, 20), 6) == [0, 40, 80, 120, 160, 200]
    assert spread([7], 6) == [7] and spread([1, 2], 6) == [1, 2]


def test_cells_say_which_prompt_is_own_and_which_is_nearest() -> None:
    rows = cells(["a lake", "a wood"], np.array([[0.9, 0.1], [0.5, 0.4]]))
    assert [title for title, _ in rows] == ["1 · a lake", "2 · a wood"]
    found = [[(cell.text, cell.own, cell.best) for cell in row] for _, row in rows]
    assert found == [[("0.90", True, True), ("0.10", False, False)],
                     [("0.50", False, True), ("0.40", True, False)]]
    assert rows[0][1][0].share == 1 and rows[0][1][1].share == 0


def test_pictures_stand_in_rows_of_five_and_courses_in_rows_of_their_own(tmp_path: Path) -> None:
    def image(level: int) -> GuidedImage:
        shown = np.full((8, 8, 3), level, np.uint8)
        return GuidedImage(prompt="", pixels=shown, losses=[], similarities=[],
                           frames={step: shown + step for step in range(0, 5)}, animation=b"")

    write_pictures(tmp_path, [image(20 * number) for number in range(7)])
    sheet, course = (np.asarray(Image.open(tmp_path / f"{name}.png"))
                     for name in ("guided", "course"))
    assert sheet.shape == (2 * 18 + 2, 5 * 18 + 2, 3) and sheet[20, 20].tolist() == [120] * 3
    assert course.shape == (4 * 18 + 2, 5 * 18 + 2, 3)
    assert [course[2, 2 + 18 * column, 0] for column in range(5)] == [0, 1, 2, 3, 4]
    assert [course[2 + 18 * row, 2, 0] for row in range(4)] == [0, 40, 80, 120]
