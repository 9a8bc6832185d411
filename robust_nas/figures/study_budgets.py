"""Robust accuracy against parameters and against MACs, with the Pareto front.

Both budgets are always shown: equal parameters can hide twice the MACs. The shape of a mark is
the configuration's role, its colour whether it is on the front.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, is_uniform, level, response_name, response_of

_FRONT, _OTHER = style.VERMILLION, "#8A8A8A"
_BUDGETS = ("params", "macs")


class StudyBudgets(StudyFigure):
    """The response against parameters and MACs."""

    heading: ClassVar[str] = "Against the budgets"
    file: ClassVar[str] = "budgets"

    name: Literal["study-budgets"] = "study-budgets"

    def says(self, record: Record) -> str:
        """Return what is shown, and what the numbers mean."""
        return (
            f"{response_name(record).capitalize()} against both budgets, {level(record)}. #1 is the configuration with "
            "the best mean, as in the table; a name or number is left out where it has no room."
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `points`, with `reference` and the uniform ones marked."""
        return plot_study_budgets(
            record["points"],
            stem,
            response=response_of(record),
            reference=record.get("reference"),
            uniform=[str(point["name"]) for point in record["points"] if is_uniform(point)],
            caption=of.words(caption),
        )


@style.drawing()
def plot_study_budgets(
    points: Sequence[Record],
    stem: Path,
    *,
    response: str = "robust",
    reference: str | None = None,
    uniform: Collection[str] = (),
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw accuracy against both budgets, an interval a point, the front as a line; return the paths.

    A point has its name next to it where there is room, else its number: the place among all by the response.

    Args:
        points: `points` of an analysis: mappings with `name`, `params`, `macs`, `metrics` (0..1) and
            `on_front` and `pareto` (each with `params` and `macs`). One without the response is left out.
        stem: where to write, without a suffix.
        response: the metric on the y axis.
        reference: the name of the configuration that others are compared with.
        uniform: names of the configurations whose stages all have one depth and one width.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has the response, or the files cannot be written.
    """
    shown = of.measured(points, response, "accuracy against budgets")
    marks = {
        str(p["name"]): "D" if p["name"] == reference else "s" if p["name"] in uniform else "o" for p in shown
    }
    figure, panels = style.new_figure(1, 2, height=4.4, caption=caption)
    named = [
        _draw(axes, shown, budget, response, marks) for axes, budget in zip(panels, _BUDGETS, strict=True)
    ]
    panels[1].sharey(panels[0])
    panels[0].autoscale(axis="y")
    panels[0].margins(y=0.12)
    panels[0].set_ylabel(of.axis(response))
    meanings = {"o": "configuration", "s": "uniform baseline", "D": "reference"}
    handles = [_mark(_FRONT, "o", "-", "on the Pareto front")]
    handles += [_mark(_OTHER, mark, "", label) for mark, label in meanings.items() if mark in marks.values()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    size = 7.5 if len(shown) <= 12 else 6.5
    for axes, places in zip(panels, named, strict=True):
        of.place_names(figure, axes, places[: of.MOST_NAMES], size)
    numbers = of.numbers(shown, response)
    header = ["number", "name", "params", "macs", response, "low", "high"]
    header += [f"{key}_{budget}" for budget in _BUDGETS for key in ("on_front", "pareto")]
    rows = [
        [
            numbers.get(str(point["name"])),
            point["name"],
            point["params"],
            point["macs"],
            *of.raw(point, response),
        ]
        + [(point.get(key) or {}).get(budget) for budget in _BUDGETS for key in ("on_front", "pareto")]
        for point in points
    ]
    return style.save(figure, stem, (header, rows))


def _draw(
    axes: Axes, shown: Sequence[Record], budget: str, response: str, marks: dict[str, str]
) -> list[tuple[float, float, str, str]]:
    """Draws a panel; the places and names in the order in which they deserve room."""
    scale = of.size_axis(axes, [float(point[budget]) for point in shown], budget)
    front, named, numbers = [], [], of.numbers(shown, response)
    for point in shown:
        y, low, high = of.estimate(point, response)
        x, mark = point[budget] / scale, marks[str(point["name"])]
        ahead = bool((point.get("on_front") or {}).get(budget))
        colour = _FRONT if ahead else _OTHER
        of.whisker(axes, x, y, low, high, color=colour, alpha=0.6)
        axes.plot(x, y, linestyle="", marker=mark, color=colour, markersize=5.5 if ahead else 4.5, zorder=3)
        named.append(
            (mark != "D", not ahead, mark == "o", -y, x, y, of.name(point), numbers[str(point["name"])])
        )
        if ahead:
            front.append((x, y))
    axes.plot(
        *zip(*sorted(front), strict=True) if front else ([], []), color=_FRONT, linewidth=1.2, zorder=1.5
    )
    return [row[4:] for row in sorted(named)]


def _mark(colour: str, mark: str, line: Literal["-", ""], label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=mark, linestyle=line, linewidth=1.2, markersize=5, label=label)
