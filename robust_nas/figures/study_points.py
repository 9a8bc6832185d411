"""What the figures of a study share: a point's numbers in per cent, short names, units of size, room for labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.series import Record

SHARES = frozenset(
    ("clean", "attacked", "robust", "stability", "robust_gap", "train_accuracy")
)  # shown in per cent; other metrics as they are
NOT_MEASURED = "#B8B8B8"
MOST_ROWS = 45  # of configurations in a figure with a row each
MOST_NAMES = 40  # next to the points of a scatter plot
TITLES = {
    "clean": "clean accuracy",
    "robust": "robust accuracy",
    "stability": "stability",
    "lip_adv": "empirical Lipschitz constant",
    "robust_gap": "robust gap (training less test)",
    "average_sensitivity": "average sensitivity",
    "params": "parameters",
    "macs": "MACs",
    "depth": "depth (blocks)",
    "width": "width",
    "last_stage_params_share": "last stage's share of the parameters",
    "last_stage_macs_share": "last stage's share of the MACs",
    "r_d": "r_D = sum of depths / (sum of depths + sum of widths)",
    "wd_ratio": "WD ratio (mean of width / depth, last stage left out)",
}
_BESIDE = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 5, "left", "bottom"),
    (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"),
    (-5, -5, "right", "top"),
    (14, 12, "left", "bottom"),
    (-14, 12, "right", "bottom"),
    (14, -12, "left", "top"),
    (-14, -12, "right", "top"),
)
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def title(key: str) -> str:
    """Return the name of a metric or factor on an axis."""
    return TITLES.get(key) or words(key)


def axis(metric: str) -> str:
    """Return the label of an axis that shows `estimate`s of the metric."""
    return f"{title(metric)} (%)" if metric in SHARES else title(metric)


def words(text: object) -> str:
    """Return the text as matplotlib shows it literally: without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def name(point: Record, limit: int = 26) -> str:
    """Return the point's name in at most `limit` letters; the middle goes, as ends tell configurations apart."""
    text = str(point["name"])
    if len(text) > limit:
        head = (limit - 1) // 2
        text = f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
    return words(text)


def estimate(point: Record, metric: str) -> tuple[float, float, float]:
    """Return the mean and its interval, of a share in per cent; NaN where there is none."""
    found = (point.get("metrics") or {}).get(metric) or {}
    low, high = found.get("interval") or (None, None)
    return tuple(percent(value, metric) for value in (found.get("mean"), low, high))  # type: ignore[return-value]


def raw(point: Record, metric: str) -> list[float | None]:
    """Return mean, low and high as the analysis has them, for a table."""
    found = (point.get("metrics") or {}).get(metric) or {}
    return [found.get("mean"), *(found.get("interval") or (None, None))]


def values(point: Record, metric: str) -> dict[int, float]:
    """Return each seed's number, as in `estimate`."""
    found = (point.get("metrics") or {}).get(metric) or {}
    pairs = zip(point.get("seeds") or (), found.get("values") or (), strict=False)
    return {seed: percent(value, metric) for seed, value in pairs}


def percent(value: float | None, metric: str = "robust") -> float:
    """Return the number, of a share in per cent; NaN for None."""
    if value is None or not math.isfinite(value):
        return math.nan
    return 100 * float(value) if metric in SHARES else float(value)


def measured(points: Sequence[Record], metric: str, what: str) -> list[Record]:
    """Return the points that have a mean of the metric.

    Raises:
        RunError: there is none.
    """
    series.require(points, what)
    found = [point for point in points if math.isfinite(estimate(point, metric)[0])]
    if not found:
        raise RunError(
            f"there is nothing to draw for {what}: none of {len(points)} configurations has '{metric}'"
        )
    return found


def ranked(points: Sequence[Record], metric: str) -> list[Record]:
    """Return the points, best first; those not above chance after the others, those without the metric last."""

    def place(point: Record) -> tuple[bool, bool, float]:
        mean = estimate(point, metric)[0]
        return math.isnan(mean), bool(point.get("at_chance")), -mean

    return sorted(points, key=place)


def numbers(points: Sequence[Record], metric: str) -> dict[str, str]:
    """Return `#1` for the best configuration, and so on, for where a name has no room; at chance there is no place."""
    return {str(point["name"]): number(place, point) for place, point in enumerate(ranked(points, metric), 1)}


def number(place: int, point: Record) -> str:
    """Return `#1` for the first of the ranked points, and so on; `at chance` for one that is not above it."""
    return "at chance" if point.get("at_chance") else f"#{place}"


def unit(numbers: Iterable[float]) -> tuple[float, str]:
    """Return the divisor of sizes, and the letter for it (k, M, G, T), so that the median is 1 or more."""
    middle = float(np.median(list(numbers)))
    return next(((size, letter) for size, letter in _UNITS if middle >= size), (1.0, ""))


def size_axis(axes: Axes, numbers: Sequence[float], key: str) -> float:
    """Make x a logarithmic axis of params or MACs with plain ticks; return the divisor of the numbers."""
    scale, letter = unit(numbers)
    axes.set_xlabel(f"{title(key)}{f' ({letter})' if letter else ''}, logarithmic")
    low, high = min(numbers) / scale, max(numbers) / scale
    axes.set_xscale("log")
    room = max((high / low) ** 0.12, 1.15)
    low, high = low / room, high * room
    axes.set_xlim(low, high)
    ticks = _ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return scale


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) >= 3:
            return ticks
    places = np.linspace(low, high, 5)[1:-1]
    return [float(f"{place:.3g}") for place in places]


def whisker(
    axes: Axes, x: float, y: float, low: float, high: float, *, flat: bool = False, **look: Any
) -> None:
    """Draw a line from low to high through the point where there is an interval (`flat`: along x)."""
    if math.isfinite(low) and math.isfinite(high):
        draw = axes.hlines if flat else axes.vlines
        draw(y if flat else x, low, high, linewidth=1.1, zorder=2, **look)


def place_names(
    figure: Figure, axes: Axes, wanted: Sequence[tuple[float, float, str, str]], size: float
) -> None:
    """Write each name, or else its shorter form, next to its (x, y) where it covers no text, point, line or edge.

    The first have the first choice; one for which there is no room is left out; of more
    than twelve only the shorter forms are written. The figure's layout is fixed before and stays so.
    """
    style.show_literally(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer)
    marks = _pixels(axes)
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    for x, y, *forms in wanted:
        label = axes.annotate("", (x, y), (0, 0), textcoords="offset points", fontsize=size, color="#303030")
        style.show_literally(label)
        for text, (dx, dy, across, along) in product(forms[-1:] if len(wanted) > 12 else forms, _BESIDE):
            label.set(text=text, position=(dx, dy), ha=across, va=along)
            box = label.get_window_extent(renderer)
            within = Bbox.intersection(box, inside)
            free = all(Bbox.intersection(box, other) is None for other in taken)
            if (
                free
                and not box.padded(2.2 * figure.dpi / 72).count_contains(marks)
                and within is not None
                and np.allclose(within.extents, box.extents)
            ):
                taken.append(box.padded(1))
                break
        else:
            label.remove()


def _pixels(axes: Axes) -> np.ndarray[Any, Any]:
    """Return the points and lines of the axes in pixels, lines sampled finely."""
    found = [_sampled(line.get_transform().transform(line.get_xydata())) for line in axes.lines]
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            move = collection.get_transform()
            found += [_sampled(move.transform(path.vertices)) for path in collection.get_paths()]
    every = np.concatenate([np.empty((0, 2)), *found])
    finite: np.ndarray[Any, Any] = every[np.isfinite(every).all(axis=1)]
    return finite


def _sampled(corners: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if len(corners) < 2:
        return corners
    steps = [np.linspace(a, b, 60) for a, b in pairwise(corners)]
    sampled: np.ndarray[Any, Any] = np.concatenate(steps)
    return sampled


def both_ends(ordered: Sequence[Record], most: int = MOST_ROWS) -> tuple[list[Record], list[int]]:
    """Return at most `most` of the ranked points with their places from 1: two thirds the best, the others the last."""
    places = range(1, len(ordered) + 1)
    if len(ordered) <= most:
        return list(ordered), list(places)
    last = most // 3
    first = most - last
    return [*ordered[:first], *ordered[-last:]], [*places[:first], *places[-last:]]


def says_ends(count: int, most: int = MOST_ROWS) -> str:
    """Return what a caption says of `both_ends` of `count` points; nothing where all are shown."""
    last = most // 3
    return (
        f" Shown: the {most - last} best and the {last} last of {count}; all are in the CSV."
        if count > most
        else ""
    )


def rows(panels: Sequence[Axes], points: Sequence[Record], places: Sequence[int]) -> None:
    """Give each point a row, the first on top, named on the left of the first panel, with its place in the ranking."""
    for axes in panels:
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.set_yticks(range(len(points)), [])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=axes is not panels[0], axis="y")
    names = [f"{name(point)}  {number(place, point)}" for place, point in zip(places, points, strict=True)]
    panels[0].set_yticks(range(len(points)), names, fontsize=row_size(len(points)))


def no_result(axes: Axes, place: int, size: float) -> None:
    """Write `no result` in the middle of a row."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": "#707070"}
    axes.text(0.5, place, "no result", transform=axes.get_yaxis_transform(), **look)


def row_height(count: int) -> float:
    """Return the height of a row in inches, by the number of rows."""
    return 0.34 if count <= 12 else 0.25 if count <= 24 else 0.2


def row_size(count: int) -> float:
    """Return the size of the letters in points, by the number of rows."""
    return 8.0 if count <= 12 else 7.0 if count <= 24 else 6.5


def on(colour: Sequence[float]) -> str:
    """Return black or white, the one that reads on the colour (red, green, blue, 0..1)."""
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
