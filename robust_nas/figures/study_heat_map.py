"""The response over two factors: a cell is the mean of the configurations measured there, hatched where none was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle

from robust_nas.errors import RunError
from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_factors import busiest_factors
from robust_nas.figures.study_figure import StudyFigure, measured, response_name, response_of

_COVERED = 1 / 3  # of the cells, for the figure to be worth its place


class StudyHeatMap(StudyFigure):
    """The response over the two factors with most values."""

    file: ClassVar[str] = "heat-map"

    name: Literal["study-heat-map"] = "study-heat-map"

    def applies(self, record: Record) -> bool:
        """Return whether two factors vary, and a third of their cells were measured."""
        factors = busiest_factors(record["points"])[:2]
        if len(factors) < 2:
            return False
        places = {tuple(point["factors"].get(key) for key in factors) for point in measured(record)}
        down, across = ({place[i] for place in places} for i in (0, 1))
        return len(down) > 1 and len(across) > 1 and len(places) >= _COVERED * len(down) * len(across)

    def title(self, record: Record) -> str:
        """Return the heading with the names of both factors."""
        first, second = busiest_factors(record["points"])[:2]
        return f"Over {first} and {second}"

    def says(self, record: Record) -> str:
        """Return what is shown, and what the brackets mean."""
        first, second = busiest_factors(record["points"])[:2]
        return (
            f"Mean {response_name(record)} over {first} and {second}; "
            "in brackets the configurations of a cell with several."
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `points`, with the cell of `reference` framed."""
        first, second = busiest_factors(record["points"])[:2]
        return plot_study_heat_map(
            record["points"],
            stem,
            factors=(first, second),
            response=response_of(record),
            reference=record.get("reference"),
            caption=of.words(caption),
        )


@style.drawing()
def plot_study_heat_map(
    points: Sequence[Record],
    stem: Path,
    *,
    factors: tuple[str, str] | None = None,
    response: str = "robust",
    reference: str | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw a heat map, the first factor on y, the second on x; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name`, `factors` and `metrics` (0..1).
        stem: where to write, without a suffix.
        factors: which two; without them the two of the generator's axes with most values.
        response: the metric that colours a cell.
        reference: the name of a configuration whose cell is framed.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has the response, fewer than two factors vary, or the files cannot be written.
    """
    shown = of.measured(points, response, "a heat map")
    if factors is None:
        varied = busiest_factors(points)
        if len(varied) < 2:
            raise RunError(f"a heat map needs two factors that vary: {varied or 'none'} of these points do")
        factors = (varied[0], varied[1])
    down, across = ([p["factors"][key] for p in points if key in p["factors"]] for key in factors)
    ys, xs = _sorted(down), _sorted(across)
    cells: dict[tuple[int, int], list[float]] = {}
    for point in shown:
        if all(key in point["factors"] for key in factors):
            place = ys.index(point["factors"][factors[0]]), xs.index(point["factors"][factors[1]])
            cells.setdefault(place, []).append(of.estimate(point, response)[0])
    if not cells:
        raise RunError(f"a heat map over {factors[0]} and {factors[1]}: no measured point has both factors")
    means = {place: float(np.mean(found)) for place, found in cells.items()}
    low, high = min(means.values()), max(means.values())
    scale = matplotlib.colors.Normalize(low - 1e-9, high + 1e-9)
    ramp = matplotlib.colormaps["cividis"]
    width = min(style.WIDTH, 2.6 + 0.75 * len(xs))
    height = 1.5 + 0.42 * len(ys)
    figure, (axes,) = style.new_figure(width=max(4.8, width), height=max(2.8, height), caption=caption)
    for i in range(len(ys)):
        for j in range(len(xs)):
            mean = means.get((i, j))
            if mean is None:
                axes.add_patch(_cell(i, j, facecolor="#F4F4F4", edgecolor="#B0B0B0", hatch="////"))
                continue
            axes.add_patch(_cell(i, j, facecolor=ramp(scale(mean)), edgecolor="white"))
            many = f" ({len(cells[i, j])})" if len(cells[i, j]) > 1 else ""
            colour = of.on(ramp(scale(mean)))
            axes.text(j, i, f"{mean:.1f}{many}", ha="center", va="center", fontsize=8, color=colour)
    for point in points:
        if point["name"] == reference and all(key in point["factors"] for key in factors):
            i, j = ys.index(point["factors"][factors[0]]), xs.index(point["factors"][factors[1]])
            axes.add_patch(_cell(i, j, fill=False, edgecolor=style.VERMILLION, linewidth=2.2, zorder=3))
    notes = ["framed: the reference"] * any(point["name"] == reference for point in points)
    notes += ["hatched: not measured"] * (len(means) < len(xs) * len(ys))
    axes.set_title("; ".join(notes), fontweight="normal", fontsize=8)
    axes.set(xlim=(-0.5, len(xs) - 0.5), ylim=(-0.5, len(ys) - 0.5))
    axes.set_xticks(range(len(xs)), [_short(value) for value in xs])
    axes.set_yticks(range(len(ys)), [_short(value) for value in ys])
    axes.set_xlabel(of.title(factors[1]))
    axes.set_ylabel(of.title(factors[0]))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(scale, ramp), ax=axes, shrink=0.9)
    bar.set_label(of.axis(response))
    bar.outline.set_visible(False)
    table = [
        [*(point["factors"].get(key) for key in factors), point["name"], of.raw(point, response)[0]]
        for point in points
    ]
    return style.save(figure, stem, ([*factors, "name", response], table))


def _cell(row: int, column: int, **look: Any) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, **{"linewidth": 1.0, **look})


def _sorted(values: Sequence[Any]) -> list[Any]:
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def _short(value: Any) -> str:
    return of.words(value)[:14] if isinstance(value, str) else f"{value:.4g}"
