"""How much each stage stretches an attack: log gains by stage, at initialisation and after training.

The gains of the stages telescope: their logarithms add up to the logarithm of the whole network's gain, which
is below them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures import study_points as of
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, response_of

_MOST = 12  # panels
_LOOK: dict[str, dict[str, Any]] = {
    "initial": {"facecolor": "#D9D9D9", "edgecolor": "#808080", "hatch": "////", "linewidth": 0.5},
    "trained": {"facecolor": style.BLUE, "edgecolor": style.BLUE, "linewidth": 0.5},
}


class StudyLipschitz(StudyFigure):
    """The gain of each stage under the attack."""

    heading: ClassVar[str] = "Gain by stage"
    file: ClassVar[str] = "lipschitz"

    name: Literal["study-lipschitz"] = "study-lipschitz"

    def applies(self, record: Record) -> bool:
        """Return whether gains were measured."""
        return any(any(point["lip_stages"].values()) for point in record["points"] if point.get("lip_stages"))

    def says(self, record: Record) -> str:
        """Return what a gain is here."""
        return (
            "Natural logarithm of each stage's gain under the attack, mean over images and seeds; the gains add up to "
            "the whole network's. Lines span the seeds. The gains of wider stages are not divided by their dimension."
            f"{of.says_ends(len(_with_gains(record['points'])), _MOST)}"
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `lip_stages` of `points`."""
        metric = response_of(record)
        return plot_study_lipschitz(record["points"], stem, response=metric, caption=of.words(caption))


@style.drawing()
def plot_study_lipschitz(
    points: Sequence[Record], stem: Path, *, response: str = "robust", caption: str = ""
) -> tuple[Path, ...]:
    """Draw the natural logarithm of each stage's gain, a panel a configuration; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name` and `lip_stages` (`initial` and `trained`: lists of
            `stage`, `log_gain` and `values`, one a seed). A line spans the seeds. Points without are left out.
        stem: where to write, without a suffix.
        response: what the panels are sorted by, the best first.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has gains, or the files cannot be written.
    """
    series.require(points, "gains of the stages")
    everyone = of.ranked(_with_gains(points), response)
    shown, _ = of.both_ends(everyone, _MOST)
    if not shown:
        raise RunError(f"there is nothing to draw for gains of the stages: none of {len(points)} has any")
    stages = list(dict.fromkeys(row["stage"] for point in shown for row in _rows(point)))
    columns = min(len(shown), 3 if len(shown) in (5, 6) else 4 if len(shown) <= 16 else 6)
    lines = -(-len(shown) // columns)
    width = style.WIDTH if columns > 2 else 3.0 + 2.9 * columns
    each = 0.5 + (0.2 if len(shown) <= 16 else 0.165) * (len(stages) + 1)
    figure, panels = style.new_figure(lines, columns, height=0.9 + each * lines, width=width, caption=caption)
    for axes, point in zip(panels, shown, strict=False):
        _draw(axes, point, stages)
        small = columns == 6
        axes.set_title(of.name(point, 20 if small else 28), fontsize=7 if small else 8.5, fontweight="normal")
        axes.tick_params(labelsize=7)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    low = min(axes.get_xlim()[0] for axes in panels[: len(shown)])
    high = max(axes.get_xlim()[1] for axes in panels[: len(shown)])
    for place, axes in enumerate(panels[: len(shown)]):
        axes.set_xlim(low, high)
        names = [*(of.words(stage) for stage in stages), "sum"] if place % columns == 0 else []
        axes.set_yticks(range(len(stages) + 1), names)
        if place // columns < lines - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("ln of the gain", fontsize=7.5)
    said = {"initial": "at initialisation", "trained": "after training"}
    handles = [Patch(label=said[when], **look) for when, look in _LOOK.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    table = [
        [point["name"], when, row["stage"], row.get("log_gain"), row.get("log_gain_rms"), *_ends(row)]
        for point in everyone
        for when in _LOOK
        for row in (point["lip_stages"].get(when) or ())
    ]
    header = ["name", "when", "stage", "log_gain", "log_gain_rms", "lowest_seed", "highest_seed"]
    return style.save(figure, stem, (header, table))


def _draw(axes: Axes, point: Record, stages: Sequence[str]) -> None:
    for when, shift in (("initial", -0.2), ("trained", 0.2)):
        gains = {row["stage"]: row for row in (point["lip_stages"].get(when) or ())}
        known = {stage: row["log_gain"] for stage, row in gains.items() if row.get("log_gain") is not None}
        for place, stage in enumerate(stages):
            if stage not in known:
                continue
            axes.barh(place + shift, known[stage], height=0.36, **_LOOK[when])
            low, high = _ends(gains[stage])
            if low is not None and high is not None and low < high:
                axes.hlines(place + shift, low, high, color="black", linewidth=0.9)
        if known and len(known) == len(gains):
            axes.barh(len(stages) + shift, sum(known.values()), height=0.36, **_LOOK[when])
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.axhline(len(stages) - 0.5, color=style.GREY, linewidth=0.6, linestyle=":")
    axes.set_ylim(len(stages) + 0.55, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _with_gains(points: Sequence[Record]) -> list[Record]:
    return [point for point in points if any((point.get("lip_stages") or {}).values())]


def _rows(point: Record) -> list[Mapping[str, Any]]:
    return [row for when in _LOOK for row in (point["lip_stages"].get(when) or ())]


def _ends(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    values = [value for value in row.get("values") or () if value is not None and np.isfinite(value)]
    return (min(values), max(values)) if values else (None, None)
