"""Where the capacity sits: each configuration's parameters and MACs by stage, the most robust on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures import study_points as of
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, level, response_name, response_of

_ROOM = 7.5  # per cent of the bar that a number needs


class StudyStages(StudyFigure):
    """The share of each stage in parameters and MACs."""

    heading: ClassVar[str] = "Where the capacity sits"
    file: ClassVar[str] = "stages"

    name: Literal["study-stages"] = "study-stages"

    def applies(self, record: Record) -> bool:
        """Return whether a configuration has stages."""
        return any(point.get("stages") for point in record["points"])

    def says(self, record: Record) -> str:
        """Return what is shown, and its order."""
        shown = of.says_ends(sum(bool(point.get("stages")) for point in record["points"]))
        sorted_by = f"{response_name(record)} ({level(record)})"
        return f"Share of each stage in parameters and MACs, sorted by {sorted_by}.{shown}"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `stages` of `points`."""
        metric = response_of(record)
        return plot_study_stages(record["points"], stem, response=metric, caption=of.words(caption))


@style.drawing()
def plot_study_stages(
    points: Sequence[Record], stem: Path, *, response: str = "robust", caption: str = ""
) -> tuple[Path, ...]:
    """Draw stacked shares of params and MACs by stage, next to the response; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name`, `stages` (`name`, `params`, `macs`) and `metrics`
            (0..1). Those without the response come last.
        stem: where to write, without a suffix.
        response: what the configurations are sorted by.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has stages, or the files cannot be written.
    """
    series.require(points, "shares of the stages")
    everyone = of.ranked([point for point in points if point.get("stages")], response)
    rows, places = of.both_ends(everyone)
    if not rows:
        raise RunError(f"there is nothing to draw for shares of the stages: none of {len(points)} has any")
    stages = list(dict.fromkeys(part["name"] for point in rows for part in point["stages"]))
    colours = _colours(stages)
    count = len(rows)
    figure, (params, macs, accuracy) = style.new_figure(
        1, 3, height=1.6 + of.row_height(count) * count, caption=caption
    )
    for axes, budget in ((params, "params"), (macs, "macs")):
        for place, point in enumerate(rows):
            _bar(axes, place, point, budget, colours, count)
        axes.set_title(of.title(budget))
        axes.set(xlim=(0, 100), xlabel="share (%)")
    for place, point in enumerate(rows):
        mean, low, high = of.estimate(point, response)
        if math.isnan(mean):
            of.no_result(accuracy, place, of.row_size(count))
        of.whisker(accuracy, mean, place, low, high, flat=True, color=style.ADVERSARIAL)
        accuracy.plot(mean, place, marker="o", markersize=4, color=style.ADVERSARIAL, linestyle="", zorder=3)
    accuracy.set_title(of.title(response))
    accuracy.set_xlabel(of.axis(response))
    of.rows((params, macs, accuracy), rows, places)
    handles = [Patch(facecolor=colours[stage], label=of.words(stage)) for stage in stages]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(8, len(handles)))
    table = [
        [point["name"], part["name"], part["params"], part["macs"], of.raw(point, response)[0]]
        for point in everyone
        for part in point["stages"]
    ]
    return style.save(figure, stem, (["name", "stage", "params", "macs", response], table))


def _bar(axes: Axes, place: int, point: Record, budget: str, colours: dict[str, Any], count: int) -> None:
    whole, left = sum(part[budget] for part in point["stages"]) or 1, 0.0
    for part in point["stages"]:
        share = 100 * part[budget] / whole
        colour = colours[part["name"]]
        axes.barh(place, share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=0.4)
        if share >= _ROOM:
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": of.on(to_rgb(colour))}
            axes.text(left + share / 2, place, f"{share:.0f}", fontsize=of.row_size(count) - 0.5, **look)
        left += share


def _colours(stages: Sequence[str]) -> dict[str, Any]:
    """Return a colour a stage: stem and head grey, the others from light to dark."""
    inner = [stage for stage in stages if stage not in ("stem", "head")]
    ramp = matplotlib.colormaps["viridis_r"]
    colours: dict[str, Any] = {"stem": "#D0D0D0", "head": "#707070"}
    colours.update({s: ramp(0.06 + 0.8 * i / max(1, len(inner) - 1)) for i, s in enumerate(inner)})
    return colours
