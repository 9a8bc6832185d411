"""Every seed of every configuration: distances between repetitions of one network, and between networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures import study_points as of
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, response_of

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class StudySeeds(StudyFigure):
    """The result of every seed."""

    heading: ClassVar[str] = "Seeds"
    file: ClassVar[str] = "seeds"

    name: Literal["study-seeds"] = "study-seeds"

    def says(self, record: Record) -> str:
        """Return the meaning of marks and bars."""
        return (
            f"A mark for each training; the bar is the mean over seeds.{of.says_ends(len(record['points']))}"
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `metrics` of `points`, seed by seed."""
        metric = response_of(record)
        return plot_study_seeds(record["points"], stem, response=metric, caption=of.words(caption))


@style.drawing()
def plot_study_seeds(
    points: Sequence[Record],
    stem: Path,
    *,
    metrics: Sequence[str] = ("clean", "robust", "stability"),
    response: str = "robust",
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw a strip for each configuration and metric, a mark a seed and a bar at the mean; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name`, `seeds` and `metrics` (0..1). Those without a
            result keep an empty row.
        stem: where to write, without a suffix.
        metrics: a panel each; one that no point has is left out.
        response: what the configurations are sorted by.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has any of the metrics, or the files cannot be written.
    """
    series.require(points, "strips of the seeds")
    known = [
        m for m in metrics if any(np.isfinite(list(of.values(point, m).values())).any() for point in points)
    ]
    if not known:
        raise RunError(
            f"there is nothing to draw for strips of the seeds: none of {len(points)} configurations has "
            f"any of {', '.join(metrics)}"
        )
    everyone = of.ranked(points, response)
    ordered, places = of.both_ends(everyone)
    count = len(ordered)
    figure, panels = style.new_figure(
        1, len(known), height=1.5 + of.row_height(count) * count, caption=caption
    )
    seeds = sorted({seed for point in ordered for metric in known for seed in of.values(point, metric)})
    looks = {seed: (style.CYCLE[i % 7], _MARKERS[i % 7]) for i, seed in enumerate(seeds)}
    for axes, metric in zip(panels, known, strict=True):
        for place, point in enumerate(ordered):
            _strip(axes, place, of.values(point, metric), looks, of.row_size(count))
        axes.set_title(of.title(metric))
        axes.set_xlabel(of.axis(metric))
        axes.margins(x=0.08)
    of.rows(panels, ordered, places)
    if 1 < len(seeds) <= len(_MARKERS):
        handles = [
            Line2D([], [], linestyle="", color=colour, marker=mark, markersize=4.5, label=f"seed {seed}")
            for seed, (colour, mark) in looks.items()
        ]
        handles.append(Line2D([], [], linestyle="", color="black", marker="|", markersize=9, label="mean"))
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    table = [
        [point["name"], seed, *found]
        for point in everyone
        for seed, *found in zip(point["seeds"], *(_raw(point, metric) for metric in known), strict=True)
    ]
    return style.save(figure, stem, (["name", "seed", *known], table))


def _raw(point: Record, metric: str) -> list[float | None]:
    """Return a number or None for each seed."""
    values = list(((point.get("metrics") or {}).get(metric) or {}).get("values") or ())
    return values + [None] * (len(point["seeds"]) - len(values))


def _strip(
    axes: Axes, place: int, values: dict[int, float], looks: dict[int, tuple[str, str]], size: float
) -> None:
    present = {seed: value for seed, value in values.items() if math.isfinite(value)}
    if not present:
        of.no_result(axes, place, size)
        return
    if len(present) > 1:
        mean = float(np.mean(list(present.values())))
        axes.vlines(mean, place - 0.36, place + 0.36, color="black", linewidth=1.4, zorder=2.5)
    for seed, value in present.items():
        colour, mark = looks[seed]
        axes.plot(value, place, linestyle="", marker=mark, color=colour, markersize=4.2, alpha=0.85, zorder=3)
