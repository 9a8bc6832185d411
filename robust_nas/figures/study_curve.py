"""The response along one number at a fixed budget: points, the fitted parabola, and its optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes

from robust_nas.errors import RunError
from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_factors import busiest_factors
from robust_nas.figures.study_figure import StudyFigure, level, response_name, response_of


class StudyCurve(StudyFigure):
    """The response along the factor of the optimum, or along the one numeric factor that varies."""

    file: ClassVar[str] = "curve"

    name: Literal["study-curve"] = "study-curve"

    def applies(self, record: Record) -> bool:
        """Return whether there is a factor to draw along."""
        return _along(record) is not None

    def title(self, record: Record) -> str:
        """Return the heading with the factor's name."""
        return f"Along {of.title(str(_along(record)))}"

    def says(self, record: Record) -> str:
        """Return what is shown, and at which budget."""
        optimum = record.get("optimum")
        held = f" at {of.title(optimum['budget'])} that count as equal" if optimum else ""
        along = of.title(str(_along(record)))
        return f"{response_name(record).capitalize()} along {along}{held}, {level(record)}."

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the points of `optimum`, or all; with the best value of `published`, where the record has it."""
        along, optimum = str(_along(record)), record.get("optimum")
        return plot_study_curve(
            [p for p in record["points"] if not optimum or p["name"] in optimum.get("points", [p["name"]])],
            stem,
            along=along,
            response=response_of(record),
            optimum=optimum,
            published=(record.get("published") or {}).get(along),
            caption=of.words(caption),
        )


def _along(tree: Record) -> str | None:
    """Return the factor of the optimum, or the one numeric factor that varies where only one does."""
    if tree.get("optimum"):
        return str(tree["optimum"]["along"])
    points = tree["points"]
    varied = busiest_factors(points)
    if len(varied) == 1 and all(not isinstance(p["factors"].get(varied[0]), str) for p in points):
        return varied[0]
    return None


@style.drawing()
def plot_study_curve(
    points: Sequence[Record],
    stem: Path,
    *,
    along: str,
    response: str = "robust",
    optimum: Record | None = None,
    published: tuple[float, float, str] | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw the response along a factor, with the fit and its optimum where there is one; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name`, `factors` (or the factor itself, as `r_d`) and
            `metrics` (0..1). One without the factor or the response is left out.
        stem: where to write, without a suffix.
        along: the factor on the x axis.
        response: the metric on the y axis.
        optimum: `optimum` of an analysis: `location`, `interval`, `interior` and `fit` ([x, y, low, high], 0..1).
        published: the lowest and the highest published best value (equal for one value) and who said so.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has both numbers, or the files cannot be written.
    """
    shown = of.measured(points, response, f"a curve along '{along}'")
    places = [_at(point, along) for point in shown]
    if not np.isfinite(places).any():
        raise RunError(f"there is nothing to draw for a curve along '{along}': no measured point has it")
    figure, (axes,) = style.new_figure(height=3.9, width=6.8, caption=caption)
    if published is not None:
        _published(axes, *published)
    if optimum is not None:
        _fit(axes, optimum, 100.0 if response in of.SHARES else 1.0)
    label = "configuration"
    for x, point in zip(places, shown, strict=True):
        y, low, high = of.estimate(point, response)
        of.whisker(axes, x, y, low, high, color=style.GREY)
        axes.plot(x, y, linestyle="", marker="o", markersize=4.5, color="black", label=label, zorder=3)
        label = ""
    axes.margins(0.06, 0.1)
    axes.set_xlabel(of.title(along))
    axes.set_ylabel(of.axis(response))
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
    ranks = of.ranked(shown, response)
    order = sorted(range(len(shown)), key=lambda i: ranks.index(shown[i]))
    named = [
        (places[i], of.estimate(shown[i], response)[0], of.name(shown[i]), of.number(k, shown[i]))
        for k, i in enumerate(order, 1)
    ]
    of.place_names(figure, axes, [row for row in named if math.isfinite(row[0])], 6.5)
    table = [["point", point["name"], _at(point, along), *of.raw(point, response)] for point in points]
    if optimum is not None:
        table += [["fit", "", *row] for row in optimum.get("fit") or ()]
        if optimum.get("location") is not None:
            table.append(
                ["optimum", "", optimum["location"], None, *(optimum.get("interval") or (None, None))]
            )
    return style.save(figure, stem, (["kind", "name", along, response, "low", "high"], table))


def _at(point: Record, along: str) -> float:
    value = (point.get("factors") or {}).get(along, point.get(along))
    return float(value) if isinstance(value, int | float) else math.nan


def _fit(axes: Axes, optimum: Record, scale: float) -> None:
    """Draw the parabola with its band, and a line at its top, shaded over the interval."""
    if optimum.get("fit"):
        x, y, low, high = np.array(optimum["fit"], dtype=float)[:, :4].T
        axes.fill_between(
            x, scale * low, scale * high, color=style.SKY, alpha=0.3, linewidth=0, label="band of the fit"
        )
        axes.plot(x, scale * y, color=style.BLUE, label="quadratic fit")
    if optimum.get("location") is None:
        return
    where = "interior optimum" if optimum.get("interior") else "optimum, interior not shown"
    text = f"{where} {optimum['location']:.3g}"
    if optimum.get("interval"):
        low, high = optimum["interval"]
        axes.axvspan(low, high, color=style.GREEN, alpha=0.12, linewidth=0, zorder=0.5)
        text += f" [{low:.3g}, {high:.3g}]"
    axes.axvline(optimum["location"], color=style.GREEN, linewidth=1.4, zorder=1.5, label=text)


def _published(axes: Axes, low: float, high: float, source: str) -> None:
    text = f"published: {low:g}" if low == high else f"published: {low:g} to {high:g}"
    for value in {low, high}:
        line = axes.axvline(value, color=style.PURPLE, linestyle="--", linewidth=1.3, zorder=1.4)
    line.set_label(of.words(f"{text}, {source}"))
