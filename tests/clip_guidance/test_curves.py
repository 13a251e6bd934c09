"""The course of an image is exact as lines, and falls and rises in the picture as it does."""
import json

import numpy as np
import pytest

from clip_guidance.curves import COLOURS, FRAME, HEIGHT, MARGIN, WIDTH, draw_curves, json_lines
from clip_guidance.optimise import Record
from clip_guidance.prompts import parse_prompts, tell_story


def records(num: int, num_prompts: int = 1) -> list[Record]:
    return [Record(step=step, loss=2.0 - step / 10, similarities=(step / 100,) * num_prompts)
            for step in range(num)]


def ends(panel: np.ndarray) -> tuple[float, float]:
    """Mean heights of the first line, in rows from the top, in the left and the right third."""
    rows, columns = np.nonzero((panel[20:] == COLOURS[0]).all(-1))
    return rows[columns < WIDTH / 3].mean(), rows[columns > 2 * WIDTH / 3].mean()


def test_every_record_is_a_line() -> None:
    lines = [json.loads(line) for line in json_lines(records(3, num_prompts=2)).splitlines()]
    assert lines[2] == {"step": 2, "loss": 1.8, "similarity": 0.02, "prompt": 0,
                        "similarities": [0.02, 0.02]}
    assert [line["step"] for line in lines] == [0, 1, 2]


def test_losses_fall_and_similarities_rise_in_the_picture() -> None:
    picture = draw_curves(records(50), parse_prompts("a red house"))
    assert picture.shape == (2 * HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    left, right = ends(picture[:HEIGHT])
    assert left < right - 50
    left, right = ends(picture[HEIGHT:])
    assert left > right + 50


def test_lines_across_show_where_a_story_changes() -> None:
    courses = [records(51, num_prompts=2)] * 2
    plain, told = (draw_curves(course, prompts) for course, prompts in zip(
        courses, (parse_prompts("a | b"), tell_story(["a", "b"], 50, every=25)), strict=True))
    changed = np.flatnonzero((plain != told).any((0, 2)))
    assert changed == [(MARGIN + WIDTH - MARGIN // 2) / 2]
    assert (told[MARGIN:HEIGHT - MARGIN, changed[0]] == FRAME).all(-1).mean() > 0.9


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("text", ["Häuschen 家", "|".join("abcdefg"), "x" * 300])
def test_short_courses_and_odd_prompts_are_drawn(num: int, text: str) -> None:
    prompts = parse_prompts(text)
    assert draw_curves(records(num, len(prompts)), prompts).shape == (2 * HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("num", [1, 2, 5, 12])
def test_names_of_all_lines_fit_above_the_frame(num: int) -> None:
    prompts = parse_prompts(" | ".join(f"{index} {'many words ' * 20}" for index in range(num)))
    names = draw_curves(records(3, num), prompts)[HEIGHT:HEIGHT + MARGIN // 2]
    ink = np.nonzero((names < 255).any((0, 2)))[0]
    assert WIDTH / 2 < ink.max() < WIDTH - 2


def test_the_last_step_stands_below_the_end_of_the_frame() -> None:
    below = draw_curves(records(3), parse_prompts("a house"))[HEIGHT - 18:HEIGHT]
    columns = np.nonzero((below < 128).all(-1).any(0))[0]
    assert abs(columns.max() - (WIDTH - MARGIN // 2)) < 6
