"""Charts of lines as SVG, in the colours of the page: curves of a run that no figure of its folder shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

POINTS = 120  # of a line: more are not seen at this size
COLOURS = 7  # classes l0, l1, ... of the page's style; with dashes from the fourth on


class Line(NamedTuple):
    """A named line; a value that is None is left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


class Axis(NamedTuple):
    """The frame of a chart: labels, and limits where they are given."""

    title: str
    x: str = ""
    y: str = ""
    limits: tuple[float, float] | None = None


def line_chart(
    axis: Axis,
    lines: Sequence[Line],
    *,
    width: int = 460,
    height: int = 240,
    levels: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Return a chart as an SVG element; `levels` are named horizontal lines."""
    drawn = [(number, _points(line)) for number, line in enumerate(lines)]
    every = [point for _, points in drawn for point in points]
    small = width < 250
    left, right, top, bottom = (30, 6, 18, 14) if small else (52, 12, 26, 36)
    (x0, x1), (y0, y1) = (
        _limits([x for x, _ in every], None),
        _limits([y for _, y in every] + [value for _, value in levels], axis.limits),
    )

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (width - left - right) * (x - x0) / (x1 - x0)
        return across, height - bottom - (height - top - bottom) * (y - y0) / (y1 - y0)

    said = [Markup('<text x="{}" y="13" class="t">{}</text>').format(0 if small else 4, axis.title)]
    for value in _ticks(y0, y1, 2 if small else 4):
        _, y = place(x0, value)
        said.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(left, y, width - right))
        said.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(left - 4, y + 3.5, value)
        )
    for value in (x0, x1) if small else _ticks(x0, x1, 5):
        x, _ = place(value, y0)
        anchor = "start" if small and value == x0 else "end" if small else "middle"
        said.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{:g}</text>').format(
                x, height - bottom + 12, anchor, value
            )
        )
    for name, value in levels:
        _, y = place(x0, value)
        said.append(Markup('<path class="level" d="M{} {:.1f}H{}"/>').format(left, y, width - right))
        said.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end" class="t">{}</text>').format(
                width - right, y - 4 if y > top + 12 else y + 12, name
            )
        )
    for number, points in drawn:
        if len(points) == 1:
            said.append(
                Markup('<circle class="l{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
                    number % COLOURS, *place(*points[0])
                )
            )
        elif points:
            path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in points)
            said.append(Markup('<path class="l{}" d="M{}"/>').format(number % COLOURS, path))
    if not small:
        said.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                width - right, height - 6, axis.x
            )
        )
        said.append(Markup('<text x="4" y="{}">{}</text>').format(height - 6, axis.y))
    label = escape(f"{axis.title}: {', '.join(line.name for line in lines)}")
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}">').format(
        label, width, height
    )
    return head + Markup("").join(said) + Markup("</svg>")


def _points(line: Line) -> list[tuple[float, float]]:
    """Return the points of a line that are numbers, thinned; the last one stays."""
    points = [
        (x, y)
        for x, y in zip(line.x, line.y, strict=False)
        if isinstance(y, int | float) and math.isfinite(y)
    ]
    step = max(1, math.ceil(len(points) / POINTS))
    return (
        points[::step]
        if len(points[::step]) and points[::step][-1] == points[-1]
        else points[::step] + points[-1:]
    )


def _limits(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    """Return the lowest and the highest value of an axis, never the same."""
    low, high = given or (min(values, default=0.0), max(values, default=1.0))
    if high > low:
        margin = 0.0 if given else 0.04 * (high - low)
        return low - margin * (given is None and low != int(low)), high + margin * (high != int(high))
    return low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Return about `number` round values between two."""
    rough = (high - low) / number
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [round(step * place, 12) for place in range(first, first + 4 * number + 4)]
    return [value for value in values if value <= high + 1e-9 * step]
