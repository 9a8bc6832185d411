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

_ORIGINAL = (style.BLACK, "*")
# Distinct by their form too, not by colour alone; given to the methods in the order in which they appear.
_STYLES = (
    (style.VERMILLION, "s"),
    (style.BLUE, "o"),
    (style.ORANGE, "^"),
    (style.GREEN, "<"),
    (style.SKY, "v"),
    (style.PURPLE, "D"),
)


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
        points: mappings with `label`, `method` (original, or the name of a compressor or baseline), `split`
            (validation or test), `baseline` (whether it is there for comparison; default False), `macs`, `params`,
            `latency_ms` (or None), `clean`, `robust`, `low` and `high` (0..1, the 95 % interval of `robust`), and
            `chosen`.
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
    styles = _styles(points)
    _panel(axes[0], points, styles, "macs", 1e6, "multiply-adds an image, M")
    if timed:
        _panel(axes[1], timed, styles, "latency_ms", 1.0, f"{latency or 'a call'}, ms")
    axes[0].set_ylabel("robust accuracy, %")
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=_title(method, points))
        for method, (colour, marker) in styles.items()
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


def _styles(points: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of every method, in the order in which they appear."""
    methods = dict.fromkeys(str(point["method"]) for point in points)
    others = [method for method in methods if method != "original"]
    styles = {method: _STYLES[number % len(_STYLES)] for number, method in enumerate(others)}
    return {method: styles.get(method, _ORIGINAL) for method in methods}


def _title(method: str, points: Sequence[Record]) -> str:
    return f"{method} (baseline)" if _is_baseline(method, points) else method


def _is_baseline(method: str, points: Sequence[Record]) -> bool:
    return any(point.get("baseline") for point in points if point["method"] == method)


def _panel(
    axes: Axes,
    points: Sequence[Record],
    styles: dict[str, tuple[str, str]],
    key: str,
    unit: float,
    label: str,
) -> None:
    """Draw one panel: robust accuracy against `key` in `unit`."""
    for split in ("validation", "test"):
        for method, (colour, marker) in styles.items():
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
                linestyle=("-" if split == "test" else ":") if not _is_baseline(method, points) else "",
                linewidth=1.0,
                zorder=3,
            )
            for row, at, height in zip(rows, x, y, strict=True):
                if row.get("chosen") and split == "test":
                    axes.plot([at], [height], "o", markersize=13, markerfacecolor="none", color=style.GREY)
    axes.margins(y=0.1)
    axes.set_xlim(0, 1.08 * max(point[key] / unit for point in points))
    axes.set_xlabel(label)
