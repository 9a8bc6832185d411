"""What an evaluation found: accuracies under each attack, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_nas.figures import series, style

_KEYS = ("label", "accuracy", "low", "high", "images")


@style.drawing()
def plot_evaluation(rows: Sequence[series.Record], stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """The paths of an evaluation's picture and numbers: a bar for each row, the first on top.

    Args:
        rows: mappings with `label`, `accuracy` (0..1), `low` and `high` (the 95% Wilson interval, 0..1,
            both or neither) and `images` (how many were judged). A row without an accuracy keeps its place.
        stem: where to write, without a suffix.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no rows, or the files cannot be written.
    """
    series.require(rows, "an evaluation")
    figure, (axes,) = style.new_figure(height=1.1 + 0.36 * len(rows), caption=caption)
    for place, row in enumerate(rows):
        accuracy, low, high = (_percent(row.get(key)) for key in ("accuracy", "low", "high"))
        if accuracy is None:
            axes.text(1, place, "not measured", va="center", color="#707070")
            continue
        axes.barh(place, accuracy, height=0.62, color=style.SKY)
        text, end = f"{accuracy:.1f}", accuracy
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color="black", linewidth=1.4)
            axes.plot([low, high], [place, place], color="black", marker="|", markersize=8, linestyle="none")
            text, end = f"{accuracy:.1f}  [{low:.1f}, {high:.1f}]", max(accuracy, high)
        axes.text(end + 1.5, place, text, va="center", fontsize=8.5)
    counts = {row.get("images") for row in rows}
    alike = len(counts) == 1
    names = [row["label"] if alike else _with_count(row) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    # Beyond 100 is room for the numbers beside a full bar.
    axes.set_xlim(0, 122)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    count = f", {next(iter(counts)):,} images" if alike and None not in counts else ""
    axes.set_xlabel(f"accuracy (%), 95% Wilson interval{count}")
    return style.save(figure, stem, (_KEYS, [[row.get(key) for key in _KEYS] for row in rows]))


def _percent(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else 100 * float(value)


def _with_count(row: series.Record) -> str:
    images = row.get("images")
    return f"{row['label']}\n{images:,} images" if images is not None else str(row["label"])
