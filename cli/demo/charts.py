"""Small charts as SVG text for the page: lines over steps or minutes, without a plotting library.

Colours come from the page's style sheet (classes ``series-0``, ``series-1``, ...), so a chart
follows the reader's light or dark setting.
"""
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
"""Size of a chart and of its margins, in units of its own that the page scales."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name and its points (x, y), in order of x."""
    name: str
    points: Sequence[tuple[float, float]]


def line_chart(series: Sequence[Series], x_title: str, y_title: str, y_log: bool = False) -> Markup:
    """Lines in one frame under their names; a line without points is left out.

    Args:
        y_log: show y on a logarithmic scale; every y is then more than 0.
    """
    series = [line for line in series if line.points]
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x_ticks = linear_ticks(min(xs, default=0.0), max(xs, default=1.0))
    y_ticks = (log_ticks if y_log else linear_ticks)(min(ys, default=1.0), max(ys, default=2.0))
    x_range = (min(xs, default=0.0), max(xs, default=1.0))
    y_range = (min([*ys, y_ticks[0]]), max([*ys, y_ticks[-1]]))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(x, *x_range)

    def down(y: float) -> float:
        share = _share(*map(math.log, (y, *y_range))) if y_log else _share(y, *y_range)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" '
             f'y2="{down(y):.1f}"/><text class="tick" text-anchor="end" x="{LEFT - 8}" '
             f'y="{down(y) + 4:.1f}">{_short(y)}</text>' for y in y_ticks]
    parts += [f'<text class="tick" text-anchor="middle" x="{across(x):.1f}" '
              f'y="{HEIGHT - BOTTOM + 18}">{_short(x)}</text>'
              for x in x_ticks if x_range[0] <= x <= x_range[1]]
    parts.append(f'<text class="title" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">'
                 f'{escape(x_title)}</text>')
    for number, line in enumerate(series):
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in thinned(line.points))
        parts.append(f'<polyline class="series-{number}" points="{points}"/>')
    names = "".join(f'<span class="series-{number}">{escape(line.name)}</span>'
                    for number, line in enumerate(series))
    return Markup(f'<div class="chart"><p><b>{escape(y_title)}</b>{names}</p>'
                  f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
                  f'aria-label="{escape(y_title)} over {escape(x_title)}">{"".join(parts)}</svg>'
                  '</div>')


def thinned(points: Sequence[tuple[float, float]], most: int = 160) -> list[tuple[float, float]]:
    """At most ``most`` points, each the mean of its neighbours in a long series."""
    if len(points) <= most:
        return list(points)
    edges = [round(index * len(points) / most) for index in range(most + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
            for group in groups]


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` and at least two."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if span / (unit * factor) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    ticks = [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
    return ticks if len(ticks) > 1 else [low, low + span]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between ``low`` and ``high``, with one beyond each end."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    marks = [factor * 10.0 ** exponent for exponent in exponents for factor in (1, 2, 5)]
    first = max(index for index, mark in enumerate(marks) if mark <= low)
    last = min(index for index, mark in enumerate(marks) if mark >= high)
    return marks[first:max(last, first + 1) + 1]


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
