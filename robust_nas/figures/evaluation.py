"""An evaluation: the images still right, attack after attack, with their intervals.

A waterfall of cumulative accuracy: a row's bar is what is left after it and all rows above it, and the hatched
part beyond the bar is what it broke of what they had left.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from robust_nas.figures import series, style
from robust_nas.figures.bars import evaluation_bars
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("label", "accuracy", "low", "high", "images")
_COUNTS = ("attacked", "broken")
_LEFT, _BROKEN = style.SKY, "#F6C9A8"  # the latter is vermillion, pale, so that an interval shows on it
_THICK = 0.62
_LABEL = 36  # letters in a line
_COLUMNS = (10, 124)  # where the numbers stand, in points right of the plot


class Waterfall(Figure):
    """The waterfall of an evaluation: the images that are still right after each attack."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("clean", "attacks", "robust")

    name: Literal["evaluation"] = "evaluation"

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, and the verdict."""
        return f"{about}; verdict {record['verdict']['status']}"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw a bar for `clean`, for each of `attacks`, and for `robust`."""
        return plot_evaluation(evaluation_bars(record), stem, caption=caption)


@style.drawing()
def plot_evaluation(rows: Sequence[series.Record], stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw an evaluation as a waterfall of the images still right, the first row on top; return the paths.

    Args:
        rows: mappings with `label`, `accuracy` (0..1, cumulative: over this row's attack and all above it),
            `low` and `high` (the 95% Wilson interval, 0..1, both or neither), `images` (how many were
            judged) and, of an attack, optionally `attacked` (how many were still right before it) and `broken`
            (how many of these it fooled). Without the counts, what was left before is the row above, if that
            judged as many images. A row without an accuracy keeps its place.
        stem: where to write, without a suffix.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no rows, or the files cannot be written.
    """
    series.require(rows, "an evaluation")
    counts = {row.get("images") for row in rows}
    alike = len(counts) == 1
    names = [_name(row, with_count=not alike) for row in rows]
    lines = max(2, *(1 + name.count("\n") for name in names))
    figure, (axes,) = style.new_figure(height=1.35 + 0.18 * lines * len(rows), caption=caption)
    before = _before(rows)
    for place, (row, start) in enumerate(zip(rows, before, strict=True)):
        _draw_row(axes, place, row, start)
    _connect(axes, rows, before)
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    count = f", {next(iter(counts)):,} images" if alike and None not in counts else ""
    axes.set_xlabel(f"accuracy (%), 95% Wilson interval{count}")
    _head(axes, [start is not None or _counted(row) for row, start in zip(rows, before, strict=True)])
    keys = (*_KEYS, *(key for key in _COUNTS if any(key in row for row in rows)))
    return style.save(figure, stem, (keys, [[row.get(key) for key in keys] for row in rows]))


def _draw_row(axes: Axes, place: int, row: series.Record, start: float | None) -> None:
    accuracy, low, high = (_percent(row.get(key)) for key in ("accuracy", "low", "high"))
    if accuracy is None:
        axes.text(1, place, "not measured", va="center", color="#707070")
        return
    axes.barh(place, accuracy, height=_THICK, color=_LEFT)
    if start is not None and start > accuracy:
        lost = axes.barh(place, start - accuracy, left=accuracy, height=_THICK, color=_BROKEN)
        lost[0].set(hatch="////", edgecolor=style.VERMILLION, linewidth=0)
    text = f"{accuracy:.1f}"
    if low is not None and high is not None:
        for colour, width, cap in (("white", 3.4, 9), ("black", 1.4, 8)):
            axes.plot(
                [low, high],
                [place, place],
                color=colour,
                linewidth=width,
                marker="|",
                markersize=cap,
                markeredgewidth=width,
                clip_on=False,
            )
        text = f"{accuracy:.1f}  [{low:.1f}, {high:.1f}]"
    _beside(axes, place, _COLUMNS[0], text)
    if _counted(row):
        attacked, broken = row["attacked"], row["broken"]
        share = f"  ({100 * broken / attacked:.1f}%)" if attacked else ""
        _beside(axes, place, _COLUMNS[1], f"{broken:,} of {attacked:,}{share}")
    elif start is not None and start > accuracy:
        _beside(axes, place, _COLUMNS[1], f"{start - accuracy:.1f} points")


def _connect(axes: Axes, rows: Sequence[series.Record], before: Sequence[float | None]) -> None:
    """Draw thin lines from the end of a bar to the start of the next, where both show the same images."""
    for place, (row, start) in enumerate(zip(rows[:-1], before[1:], strict=True)):
        end = _percent(row.get("accuracy"))
        if end is not None and start is not None and math.isclose(end, start, abs_tol=1e-6):
            edges = [place + _THICK / 2, place + 1 - _THICK / 2]
            axes.plot([end, end], edges, color=style.GREY, linewidth=0.8, solid_capstyle="butt")


def _head(axes: Axes, broke: Sequence[bool]) -> None:
    """Write the headings of the numbers next to the bars, and a legend where there are two kinds of bars."""
    look: dict[str, Any] = {
        "xy": (1, 1),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "bottom",
        "fontsize": 8,
        "color": style.GREY,
        "annotation_clip": False,
    }
    axes.annotate("left (%)", xytext=(_COLUMNS[0], 5), **look)
    if not any(broke):
        return
    axes.annotate("broken, of those left", xytext=(_COLUMNS[1], 5), **look)
    hatched = Patch(facecolor=_BROKEN, edgecolor=style.VERMILLION, hatch="////", linewidth=0)
    axes.legend(
        [Patch(facecolor=_LEFT), hatched],
        ["left", "broken by this attack"],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        ncols=2,
    )


def _beside(axes: Axes, place: float, offset: float, text: str) -> None:
    axes.annotate(
        text,
        xy=(1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(offset, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        annotation_clip=False,
    )


def _before(rows: Sequence[series.Record]) -> list[float | None]:
    """Return the share still right before each row, in percent of its own images; None where it is not known."""
    before: list[float | None] = []
    for above, row in zip([{}, *rows], rows, strict=False):
        images = row.get("images")
        if _counted(row) and images:
            before.append(100 * row["attacked"] / images)
        else:
            same = images is not None and above.get("images") == images
            before.append(_percent(above.get("accuracy")) if same else None)
    return before


def _counted(row: series.Record) -> bool:
    return all(row.get(key) is not None for key in _COUNTS)


def _percent(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else 100 * float(value)


def _name(row: series.Record, *, with_count: bool) -> str:
    name, images = textwrap.fill(str(row["label"]), _LABEL), row.get("images")
    return f"{name}\n{images:,} images" if with_count and images is not None else name
