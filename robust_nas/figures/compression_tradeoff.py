"""What compression costs: robust accuracy against multiply-adds, and against milliseconds, a point a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.series import Record
from robust_nas.figures.study_points import place_names

# Told apart by their form too, not by colour alone.
_METHODS: dict[str, tuple[str, str]] = {
    "original": (style.BLACK, "*"),
    "gdws": (style.BLUE, "o"),
    "cstar": (style.VERMILLION, "s"),
    "cstar+gdws": (style.PURPLE, "D"),
    "truncate": (style.ORANGE, "^"),
    "truncate-short": (style.GREEN, "<"),
    "uniform": (style.SKY, "v"),
}
_LINES = ("gdws", "cstar+gdws")  # one network after the other along a budget
_KEYS = (
    "label",
    "method",
    "split",
    "macs",
    "params",
    "latency_ms",
    "clean",
    "robust",
    "low",
    "high",
    "chosen",
)


@style.drawing()
def plot_compression(
    points: Sequence[Record], stem: Path, *, latency: str = "", caption: str = ""
) -> tuple[Path, ...]:
    """The paths of the picture and the numbers: filled points are the test set's, hollow ones the validation split's.

    Args:
        points: mappings with `label`, `method` (original, gdws, cstar, cstar+gdws, or a baseline), `split`
            (validation or test), `macs`, `params`, `latency_ms` (or None), `clean`, `robust`, `low` and `high` (0..1,
            the 95 % interval of `robust`), and `chosen`.
        stem: where to write, without a suffix.
        latency: how the milliseconds were taken, for the axis; the second panel is left out where there are none.
        caption: attacks, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no points, or the files cannot be written.
    """
    if not points:
        raise RunError("there is nothing to draw of a compression: no network was measured")
    timed = [point for point in points if point.get("latency_ms")]
    figure, axes = style.new_figure(1, 2 if timed else 1, height=4.2, caption=caption)
    _panel(axes[0], points, "macs", 1e6, "multiply-adds an image, M")
    if timed:
        _panel(axes[1], timed, "latency_ms", 1.0, f"{latency or 'a call'}, ms")
    axes[0].set_ylabel("robust accuracy, %")
    methods = [name for name in _METHODS if any(point["method"] == name for point in points)]
    handles = [
        Line2D([], [], linestyle="", marker=_METHODS[name][1], color=_METHODS[name][0], label=_title(name))
        for name in methods
    ]
    splits = {str(point["split"]) for point in points}
    handles += [
        Line2D([], [], linestyle="", marker="o", color=style.GREY, markerfacecolor=face, label=text)
        for split, face, text in (
            ("validation", "white", "validation split (hollow)"),
            ("test", style.GREY, "test set, 95 % interval"),
        )
        if split in splits
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    for panel, rows, key, unit in zip(
        axes, (points, timed), ("macs", "latency_ms"), (1e6, 1.0), strict=False
    ):
        shown = [row for row in rows if row["split"] == "test"] or list(rows)
        named = [
            (row[key] / unit, 100 * row["robust"], str(row["label"]), str(row["label"])) for row in shown
        ]
        place_names(figure, panel, named, 6.5)
    return style.save(figure, stem, (_KEYS, [[point.get(key) for key in _KEYS] for point in points]))


def _title(method: str) -> str:
    return f"{method} (baseline)" if method in ("truncate", "truncate-short", "uniform") else method


def _panel(axes: Axes, points: Sequence[Record], key: str, unit: float, label: str) -> None:
    for split in ("validation", "test"):
        for method, (colour, marker) in _METHODS.items():
            rows = sorted(
                (row for row in points if row["method"] == method and row["split"] == split),
                key=lambda row: float(row[key]),
            )
            if not rows:
                continue
            x = [row[key] / unit for row in rows]
            y = [100 * row["robust"] for row in rows]
            if split == "test":
                low = [100 * (row["robust"] - row["low"]) for row in rows]
                high = [100 * (row["high"] - row["robust"]) for row in rows]
                axes.errorbar(
                    x, y, (low, high), fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5, zorder=2
                )
            axes.plot(
                x,
                y,
                marker=marker,
                markersize=9 if method == "original" else 5.5,
                color=colour,
                markerfacecolor=colour if split == "test" else "white",
                linestyle=("-" if split == "test" else ":") if method in _LINES else "",
                linewidth=1.0,
                zorder=3,
            )
            for row, at, height in zip(rows, x, y, strict=True):
                if row.get("chosen") and split == "test":
                    axes.plot([at], [height], "o", markersize=13, markerfacecolor="none", color=style.GREY)
    axes.margins(y=0.1)
    axes.set_xlim(0, 1.08 * max(point[key] / unit for point in points))
    axes.set_xlabel(label)
