"""Series of numbers with gaps: read from records, smoothed, thinned for the eye."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robust_nas.errors import RunError

Record = Mapping[str, Any]
Array = NDArray[np.float64]

_BUCKETS = 600
_FEW = 20


def require(records: Sequence[Record], what: str) -> None:
    """Raise RunError where there is nothing to draw."""
    if not records:
        raise RunError(f"there is nothing to draw for {what}: expected at least one record, got none")


def column(records: Sequence[Record], key: str, part: str | None = None) -> Array:
    """Return the values under `key` (and `part`, where each is a mapping); NaN where absent, None or not finite."""
    values = np.full(len(records), np.nan)
    for i, record in enumerate(records):
        value = record.get(key)
        if part is not None:
            value = value.get(part) if value is not None else None
        if value is not None and math.isfinite(value):
            values[i] = value
    return values


def from_one(records: Sequence[Record]) -> list[Record]:
    """Return the records with epochs counted from 1, as figures and tables show them; records count from 0."""
    return [
        {**record, "epoch": record["epoch"] + 1} if record.get("epoch") is not None else record
        for record in records
    ]


def parts(records: Sequence[Record], key: str) -> list[str]:
    """Return the names within the mappings under `key`, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record.get(key) or {}))


def table(
    records: Sequence[Record], keys: Sequence[str], mappings: Sequence[str] = ()
) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows with the records' own numbers, none thinned; a mapping becomes a column per part."""
    nested = [(key, part) for key in mappings for part in parts(records, key)]
    rows = [
        [record.get(key) for key in keys] + [(record.get(key) or {}).get(part) for key, part in nested]
        for record in records
    ]
    return [*keys, *(f"{key}_{part}" for key, part in nested)], rows


def running_mean(y: Array, window: int) -> Array:
    """Return the mean of the last `window` values at each place (of fewer at the start)."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    last = np.arange(1, len(y) + 1)
    first = np.maximum(last - window, 0)
    mean: Array = (total[last] - total[first]) / (last - first)
    return mean


def thin(x: Array, y: Array) -> tuple[Array, Array]:
    """Return at most 1,200 points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(x) <= 2 * _BUCKETS:
        return x, y
    stretches = np.array_split(np.arange(len(x)), _BUCKETS)
    ends = [(stretch[np.argmin(y[stretch])], stretch[np.argmax(y[stretch])]) for stretch in stretches]
    kept = np.unique(np.array(ends))
    return x[kept], y[kept]


def present(x: Array, y: Array) -> tuple[Array, Array]:
    """Return the points that have both numbers: a line joins what was recorded, across gaps."""
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def draw(axes: Axes, x: Array, y: Array, *, label: str, colour: str) -> None:
    """Draw the values, faint, under their running mean; nothing where there is no value."""
    x, y = present(x, y)
    if len(y) == 0:
        return
    if len(y) < _FEW:
        axes.plot(x, y, color=colour, marker="o", markersize=3, label=label)
        return
    axes.plot(*thin(x, y), color=colour, alpha=0.25, linewidth=0.7, zorder=1.5)
    axes.plot(*thin(x, running_mean(y, max(5, len(y) // 50))), color=colour, label=label)


def mark(axes: Axes, x: float, text: str) -> None:
    """Draw a labelled vertical line; the label is between plot and title, where no curve runs."""
    axes.axvline(x, color="#404040", linestyle="--", linewidth=1)
    axes.set_title(axes.get_title(loc="left"), pad=15)
    place = axes.get_xaxis_transform()
    axes.text(x, 1.01, text, transform=place, fontsize=8, ha="center", va="bottom", color="#404040")


def legend(axes: Axes) -> None:
    """Draw a legend where there are several lines, and a note where there is none."""
    lines = axes.get_legend_handles_labels()[0]
    if len(lines) > 1:
        axes.legend(loc="best")
    elif not lines:
        axes.text(0.5, 0.6, "not recorded", transform=axes.transAxes, ha="center", color="#707070")
