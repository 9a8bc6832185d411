"""The response over two factors: a cell is the mean of the configurations measured there, hatched where none was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle

from robust_nas.errors import RunError
from robust_nas.figures import study_points as of
from robust_nas.figures import style
from robust_nas.figures.series import Record

DERIVED = frozenset(
    (
        "params",
        "macs",
        "depth",
        "width",
        "r_d",
        "wd_ratio",
        "last_stage_params_share",
        "last_stage_macs_share",
        "genotype",
    )
)


def busiest_factors(points: Sequence[Record]) -> list[str]:
    """The factors that were set, not computed, with two values or more: those with most values first.

    Depth and width count where no stage was set by itself.
    """
    found: dict[str, set[Any]] = {}
    for point in points:
        for key, value in (point.get("factors") or {}).items():
            found.setdefault(key, set()).add(value)
    varied = [key for key, values in found.items() if len(values) > 1]
    chosen = [key for key in varied if key not in DERIVED]
    if not any(key.startswith(("depths.", "widths.")) for key in chosen):
        chosen += [key for key in ("depth", "width") if key in varied]
    return sorted(chosen, key=lambda key: -len(found[key]))


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
    """The paths of a heat map: the first factor on y, the second on x, the response written in each cell.

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
