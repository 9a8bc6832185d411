"""Training methods next to each other: their accuracies, and the paired differences to the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_nas.errors import RunError
from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, level

# Distinguished by shape and by colour.
LOOKS = {
    "clean": ("o", style.BLUE),
    "attacked": ("s", style.GREEN),
    "robust": ("D", style.VERMILLION),
}
APART = 0.2  # rows, between the marks of one method
GAP = 1.3  # rows, between two tables

Triple = tuple[
    float, float, float
]  # an estimate and the ends of its interval, in per cent; NaN: there is none


class _Row(NamedTuple):
    table: str
    name: str
    place: float
    accuracies: dict[str, Triple]
    differences: dict[str, Triple]


class StudyMethods(StudyFigure):
    """The comparison of training methods."""

    needs: ClassVar[tuple[str, ...]] = ("comparison",)
    heading: ClassVar[str] = "Training methods"
    file: ClassVar[str] = "methods"

    name: Literal["study-methods"] = "study-methods"

    def says(self, record: Record) -> str:
        """Return what marks and lines mean, and how many seeds there are."""
        comparison = record["comparison"]
        seeds = (
            "one seed has no interval."
            if len(record["seeds"]) == 1
            else f"lines are {level(record)} (accuracies: with three seeds or more)."
        )
        return (
            f"Accuracies by training method, and robust accuracy less that of {comparison['reference']} on the same "
            f"images; {seeds} Robust: right after every attack of the suite and {comparison['attack']}."
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the tables of `comparison`."""
        return plot_study_methods(record["comparison"], stem, caption=of.words(caption))


@style.drawing()
def plot_study_methods(comparison: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw accuracies on the left and differences to the reference on the right, a row a method; return the paths.

    Args:
        comparison: mappings `tables` (each `arm` and `rows` with `name`, `metrics`, `differences`), `reference` and
            `attack`, as an analysis holds them; accuracies and differences are shares.
        stem: where to write, without a suffix.
        caption: suite, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no method has an accuracy, or the files cannot be written.
    """
    rows = _rows(comparison["tables"])
    if not any(math.isfinite(value) for row in rows for value, *_ in row.accuracies.values()):
        raise RunError(f"there is nothing to draw for training methods: none of {len(rows)} has an accuracy")
    last = rows[-1].place
    figure, (left, right) = style.new_figure(1, 2, height=1.7 + 0.36 * (last + 1), caption=caption)
    for axes in (left, right):
        axes.set_ylim(last + 0.6, -0.6 - (len(comparison["tables"]) > 1) * 0.8)
        axes.set_yticks([row.place for row in rows], [])
        axes.tick_params(axis="y", length=0)
    left.set_yticklabels([of.name({"name": row.name}, 34) for row in rows])
    right.axvline(0, color="black", linewidth=1)
    for row in rows:
        for number, (key, triple) in enumerate(row.accuracies.items()):
            _mark(left, row.place + APART * (number - 1), triple, key)
        if "robust" in row.differences:
            _mark(right, row.place, row.differences["robust"], "robust")
    if len(comparison["tables"]) > 1:
        for table in comparison["tables"]:
            first = next(row.place for row in rows if row.table == table["arm"])
            look: dict[str, Any] = {"transform": left.get_yaxis_transform(), "va": "center", "fontsize": 8}
            left.text(0.01, first - 0.85, of.words(table["arm"]), color=style.GREY, fontweight="bold", **look)
    left.margins(x=0.06)
    left.set_xlabel("accuracy (%)")
    right.set_xlabel(f"robust accuracy less that of {of.words(comparison['reference'])} (points)")
    labels = {"clean": "clean", "attacked": str(comparison["attack"]), "robust": "robust (worst case)"}
    handles = [
        Line2D([], [], linestyle="", marker=mark, color=colour, label=labels[key])
        for key, (mark, colour) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return style.save(figure, stem, (_header(), [_numbers(row) for row in rows]))


def _rows(tables: Sequence[Record]) -> list[_Row]:
    found: list[_Row] = []
    place = 0.0
    for table in tables:
        for row in table["rows"]:
            accuracies = {key: _triple(row["metrics"].get(key), "mean") for key in LOOKS}
            differences = {key: _triple(value, "effect") for key, value in row["differences"].items()}
            found.append(_Row(table["arm"], row["name"], place, accuracies, differences))
            place += 1
        place += GAP
    return found


def _triple(value: Mapping[str, Any] | None, key: str) -> Triple:
    value = value or {}
    low, high = value.get("interval") or (None, None)
    middle, low, high = (of.percent(number) for number in (value.get(key), low, high))
    return middle, low, high


def _mark(axes: Axes, place: float, triple: Triple, key: str) -> None:
    mark, colour = LOOKS[key]
    value, low, high = triple
    of.whisker(axes, value, place, low, high, flat=True, color=colour)
    axes.plot(value, place, linestyle="", marker=mark, markersize=4.5, color=colour, zorder=3)


def _header() -> list[str]:
    names = [f"{key}{part}" for key in LOOKS for part in ("", "_low", "_high")]
    return ["table", "method", *names, "robust_difference", "difference_low", "difference_high"]


def _numbers(row: _Row) -> list[Any]:
    none = (math.nan,) * 3
    numbers = [*row.accuracies.values(), row.differences.get("robust", none)]
    return [
        row.table,
        row.name,
        *(None if math.isnan(value) else value / 100 for triple in numbers for value in triple),
    ]
