"""The page: one file without requests, and charts that show what they are given."""
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from cli.demo.charts import Series, line_chart, linear_ticks, log_ticks, thinned
from cli.demo.page import Bar, Page, PriorCard, Row, Stage, TokenizerCard, duration, picture, render

GREY = np.full((8, 8, 3), 128, np.uint8)


def small_page(**changes: object) -> Page:
    shown = picture(GREY, "a <grey> square", "grey & square")
    row = Row("squares", [shown, shown])
    chart = line_chart([Series("training", [(0, 2.0), (10, 1.0)])], "step", "loss", y_log=True)
    card = TokenizerCard(name="Image", figure="24.0 dB", unit="PSNR", rows=[row], chart=chart,
                         facts=[("grid", "16 × 16")])
    prior = PriorCard(title="By class", figure="3.10", unit="bits", chart=chart, facts=[])
    settings: dict[str, object] = dict(
        headline=[("2,000", "scenes")], banner=[row], legend=[("sky", "rgb(1, 2, 3)")],
        corpus=[row], captions=["a lake at noon"], tokenizers=[card], token_rows=[row],
        token_facts=[("rows", "12")], dead_letters=[("a/b", "UnreadableImage", "cut short")],
        example_row='key "a/b"', priors=[prior],
        class_rows=[row], map_columns=["map", "sample"], map_rows=[[shown, shown]],
        bars=[Bar("samples", 0.65, "the prior", strong=True)],
        completion_columns=["given", "completion"], completion_rows=[[shown, shown]],
        stages=[Stage("Encode", 12.3, "img2tokens encode a b")], machine="2 cores")
    return Page(**(settings | changes))  # type: ignore[arg-type]


def test_page_asks_for_nothing_outside_itself() -> None:
    html = render(small_page())
    assert "http" not in html
    assert "<script" not in html and "<link" not in html and "@import" not in html
    sources = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', html)
    assert sources and all(source[0].startswith("data:image/png;base64,") for source in sources)


def test_page_shows_figures_words_and_commands() -> None:
    html = render(small_page())
    for text in ("24.0 dB", "0.65", "a lake at noon", "UnreadableImage", "12 s",
                 "img2tokens encode a b", "prefers-color-scheme: dark"):
        assert text in html


def test_words_from_outside_are_escaped() -> None:
    html = render(small_page())
    assert "a &lt;grey&gt; square" in html and "grey &amp; square" in html


def test_every_picture_has_words_that_stand_for_it() -> None:
    images = re.findall(r"<img [^>]*>", render(small_page()))
    assert images and all(re.search(r'alt="[^"]+"', image) for image in images)


def test_without_dead_letters_none_are_spoken_of() -> None:
    assert "damaged on purpose" not in render(small_page(dead_letters=[]))


@pytest.mark.parametrize(("seconds", "text"), [
    (0.42, "0.4 s"), (48.4, "48 s"), (60, "1 min 0 s"), (185.2, "3 min 5 s")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def svg_of(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(re.findall(r"<svg.*</svg>", chart)[0])


def test_a_chart_is_sound_xml_with_one_line_for_each_series_that_has_points() -> None:
    lines = [Series("a & b", [(0, 1), (5, 2)]), Series("empty", []), Series("c", [(1, 1)])]
    chart = line_chart(lines, "step", "loss")
    assert len(svg_of(chart).findall("polyline")) == 2
    assert "a &amp; b" in chart and "empty" not in chart


def test_points_lie_inside_the_frame_and_higher_values_lie_higher() -> None:
    svg = svg_of(line_chart([Series("a", [(0, 0.01), (5, 3.0), (9, 80.0)])], "x", "y", y_log=True))
    line = svg.find("polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert all(0 <= x <= 640 and 0 <= y <= 260 for x, y in points)
    assert points[0][1] > points[1][1] > points[2][1]


def test_a_chart_without_points_is_an_empty_frame() -> None:
    assert not svg_of(line_chart([], "x", "y")).findall("polyline")


def test_long_series_are_thinned_to_means() -> None:
    points = [(float(x), float(x % 2)) for x in range(1000)]
    thin = thinned(points, most=100)
    assert len(thin) == 100
    assert all(abs(y - 0.5) < 1e-9 for _, y in thin)
    assert thinned(points[:7], most=100) == points[:7]


@pytest.mark.parametrize(("low", "high", "ticks"), [
    (0, 10, [0, 2, 4, 6, 8, 10]), (0.1, 0.52, [0.1, 0.2, 0.3, 0.4, 0.5]), (3, 3, None)])
def test_linear_ticks_are_round(low: float, high: float, ticks: list[float] | None) -> None:
    found = linear_ticks(low, high)
    assert 2 <= len(found) <= 6
    if ticks is not None:
        assert found == pytest.approx(ticks)


def test_log_ticks_enclose_the_range() -> None:
    assert log_ticks(0.03, 0.7) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
