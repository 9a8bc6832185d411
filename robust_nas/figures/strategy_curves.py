"""Search strategies on a table: the best value, or the hypervolume, by the number of evaluations, and the regret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from matplotlib.axes import Axes

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # next to the colours
_DECADES = 4  # of regret, at most
_FIRST = 15  # the share of a run whose values are not asked for by the axis
_POINT = ("evaluations", "mean", "low", "high", "regret", "regret_low", "regret_high", "optimal")


class StrategyCurves(Figure):
    """The mean of every strategy over its runs, with a band."""

    of: ClassVar[Job] = "benchmark"
    needs: ClassVar[tuple[str, ...]] = ("curves",)

    name: Literal["strategies"] = "strategies"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `curves`."""
        return plot_strategies(
            record["curves"], stem, measure=record["measure"], optimum=record["optimum"], caption=caption
        )


@style.drawing()
def plot_strategies(
    curves: Mapping[str, Mapping[str, Any]], stem: Path, *, measure: str, optimum: float, caption: str = ""
) -> tuple[Path, ...]:
    """Draw the mean over runs with its interval by the number of evaluations, and the regret; return the paths.

    Args:
        curves: strategy to `runs` and `points`, a mapping a number of `evaluations` with `mean`, `low`, `high`,
            `regret`, `regret_low`, `regret_high` and `optimal` (the share of runs without regret).
        stem: where to write, without a suffix.
        measure: what the mean is of, for the axis.
        optimum: the measure of the whole table, a line.
        caption: objectives, table and runs, in a line under the plot.

    Raises:
        RunError: there are no curves, or the files cannot be written.
    """
    series.require([*curves.values()], "strategies")
    figure, (value, regret) = style.new_figure(1, 2, height=3.6, caption=caption)
    for number, (name, curve) in enumerate(curves.items()):
        look = {"color": style.CYCLE[number % len(style.CYCLE)], "linestyle": _DASHES[number % len(_DASHES)]}
        _band(value, curve["points"], ("mean", "low", "high"), look, name)
        _band(regret, curve["points"], ("regret", "regret_low", "regret_high"), look, name)
    value.axhline(optimum, color=style.GREY, linewidth=0.9, label="all of the table")
    ends = [*_settled(curves), optimum]
    room = 0.06 * (max(ends) - min(ends) or 1.0)
    value.set_ylim(min(ends) - room, max(ends) + room)
    value.set(title=measure, xlabel="evaluations", ylabel=f"{measure}, mean over runs")
    regret.set(title="regret", xlabel="evaluations", ylabel="regret, mean over runs")
    lost = [point["regret"] for curve in curves.values() for point in curve["points"] if point["regret"] > 0]
    if lost:
        regret.set_yscale("log", nonpositive="clip")  # a band may end at 0, which is below the axis
        regret.set_ylim(max(min(lost), max(lost) / 10**_DECADES) / 2, 2 * max(lost))
    value.legend(loc="lower right" if optimum == max(ends) else "upper right")
    rows = [
        [name, curve["runs"], *(point[key] for key in _POINT)]
        for name, curve in curves.items()
        for point in curve["points"]
    ]
    return style.save(figure, stem, (["strategy", "runs", *_POINT], rows))


def _settled(curves: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Return the means but for the first evaluations, which are far off and would flatten the rest."""
    points = [point for curve in curves.values() for point in curve["points"]]
    first = max(point["evaluations"] for point in points) / _FIRST
    return [point["mean"] for point in points if point["evaluations"] >= first]


def _band(axes: Axes, points: Any, keys: tuple[str, str, str], look: Mapping[str, Any], name: str) -> None:
    x = series.column(points, "evaluations")
    mean, low, high = (series.column(points, key) for key in keys)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(x, mean, label=name, **look)
