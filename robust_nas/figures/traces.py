"""The progress of attacks, step by step: its loss, and the share of images that it has not fooled yet."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("step", "mean", "low", "high", "still_right")
_PANEL = {1: 5.4, 2: 4.2, 3: 3.2}  # inches wide, by the number of columns
_FEW = 20
_MOST = 1200
_BAND = "#A6CDE6"
_UNITS = {
    "ce": "cross-entropy, nats",
    "ce-targeted": "log-probability of the target, nats",
    "kl": "KL from the clean prediction, nats",
    "margin": "margin, logits",
}


class LossTraces(Figure):
    """The loss of each attack, step by step."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("attacks",)
    file: ClassVar[str] = "loss_traces"

    name: Literal["loss-traces"] = "loss-traces"

    def has_data(self, record: Record) -> bool:
        """Return whether an attack left a trace."""
        return super().has_data(record) and bool(_traced(record))

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, the number of images and runs of each attack, and the meaning of the band."""
        counts = ", ".join(f"{row['label']} {row['attacked']}{_runs(row)}" for row in _traced(record))
        return f"{about}; loss: first run of each attack; images: {counts}; band: 10th to 90th percentile"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `trace` of every one of `attacks` that has one."""
        rows = _traced(record)
        units = {row["label"]: _unit(row["parameters"].get("loss", "ce")) for row in rows}
        traces = {row["label"]: row["trace"] for row in rows}
        broken = {row["label"]: (row["broken"], row["attacked"]) for row in rows}
        return plot_loss_traces(traces, stem, units=units, broken=broken, caption=caption)


def _runs(row: Record) -> str:
    """Return over how many runs the share still right is counted; evaluations of an earlier version have the first."""
    runs = row.get("runs")
    return (
        f" (right in all {runs} runs)" if runs and runs > 1 else "" if runs else " (right in its first run)"
    )


def _traced(record: Record) -> list[Record]:
    return [row for row in record["attacks"] if row.get("trace")]


def _unit(loss: str) -> str:
    return _UNITS.get(loss, f"{loss}, no unit")


@style.drawing()
def plot_loss_traces(
    traces: Mapping[str, Sequence[series.Record]],
    stem: Path,
    *,
    units: Mapping[str, str] | None = None,
    broken: Mapping[str, tuple[int, int]] | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw the loss of each attack, and under it the share still right; return the paths.

    An attack has done what it can when both are level at the end; a dashed line marks the last step at
    which the share still right fell.

    Args:
        traces: attack label -> one mapping a step, with `step`, `mean`, `low` and `high` (of the loss over
            images: mean, 10th and 90th percentile) and `still_right` (the share of images, 0..1, still right
            at every iterate so far). A value that is None, NaN or absent is left out.
        stem: where to write, without a suffix.
        units: attack label -> what the loss is measured in, such as `nats` or `margin, no unit`.
        broken: attack label -> the images that it broke, and those that it got; said where the curve ends elsewhere.
        caption: attacks, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there is no trace with a step, or the files cannot be written.
    """
    if not any(traces.values()):
        raise RunError(
            f"there is nothing to draw for loss traces: expected at least one step, got {dict(traces)}"
        )
    columns = min(len(traces), 2 if len(traces) in (2, 4) else 3)
    pairs = math.ceil(len(traces) / columns)
    figure, axes = style.new_figure(
        2 * pairs,
        columns,
        height=0.5 + 3.3 * pairs,
        width=_PANEL[columns] * columns,
        caption=caption,
        shares=[1.7, 1] * pairs,
    )
    for number, (label, rows) in enumerate(traces.items()):
        upper = 2 * (number // columns) * columns + number % columns
        loss, share = axes[upper], axes[upper + columns]
        loss.set_title(textwrap.fill(label, int(_PANEL[columns] * 72 / 7.5)))
        loss.set_ylabel(f"loss ({units[label]})" if units and label in units else "loss")
        _draw_loss(loss, rows)
        _draw_share(share, loss, rows, (broken or {}).get(label))
        share.set_ylim(_span(rows))
        share.set_ylabel("still right (%)")
        share.set_xlabel("step")
        share.sharex(loss)
        loss.tick_params(labelbottom=False)
        loss.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    for place in range(len(traces), pairs * columns):
        upper = 2 * (place // columns) * columns + place % columns
        for empty in (axes[upper], axes[upper + columns]):
            empty.set_axis_off()
    handles = {
        text: handle for each in axes for handle, text in zip(*each.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=2 if columns == 1 else 4)
    table = [[label, *(row.get(key) for key in _KEYS)] for label, rows in traces.items() for row in rows]
    return style.save(figure, stem, (("attack", *_KEYS), table))


def _draw_loss(axes: Axes, rows: Sequence[series.Record]) -> None:
    steps = series.column(rows, "step")
    low, high = series.column(rows, "low"), series.column(rows, "high")
    x, y = series.present(steps, series.column(rows, "mean"))
    if len(x):
        marker = "o" if len(x) < _FEW else ""
        axes.plot(
            *series.thin(x, y), color=style.BLUE, marker=marker, markersize=3, label="mean loss over images"
        )
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#707070")
    finite = np.flatnonzero(np.isfinite(steps + low + high))
    if len(finite) > _MOST:
        finite = finite[np.unique(np.linspace(0, len(finite) - 1, _MOST).astype(int))]
    if len(finite):
        axes.fill_between(
            steps[finite],
            low[finite],
            high[finite],
            color=_BAND,
            alpha=0.6,
            linewidth=0,
            label="10th to 90th percentile of images",
        )


def _draw_share(
    axes: Axes, above: Axes, rows: Sequence[series.Record], broken: tuple[int, int] | None
) -> None:
    note_look: dict[str, Any] = {"fontsize": 8, "fontweight": "normal", "color": style.GREY, "pad": 3}
    x, y = series.present(series.column(rows, "step"), 100 * series.column(rows, "still_right"))
    if not len(x):
        axes.set_title("not recorded", **note_look)
        return
    marker = "o" if len(x) < _FEW else ""
    axes.step(
        x, y, where="post", color=style.VERMILLION, marker=marker, markersize=3, label="share still right"
    )
    falls = np.flatnonzero(np.diff(y) < 0)
    if len(falls):
        note = f"fell last at step {x[falls[-1] + 1]:,.0f} of {x[-1]:,.0f}, to {y[-1]:.1f}%"
    else:
        note = f"no fall up to step {x[-1]:,.0f}, at {y[-1]:.1f}%"
    if broken is not None and broken[1] and abs(y[-1] - 100 * (1 - broken[0] / broken[1])) > 0.05:
        note += f"; the attack broke {broken[0]:,} of {broken[1]:,}"
    axes.set_title(note, **note_look)
    if len(falls):
        look: dict[str, Any] = {"color": "#404040", "linestyle": "--", "linewidth": 0.9, "zorder": 1.5}
        above.axvline(x[falls[-1] + 1], **look)
        axes.axvline(x[falls[-1] + 1], label="its last fall", **look)


def _span(rows: Sequence[series.Record]) -> tuple[float, float]:
    """Return the limits of the axis of shares, in percent: at least 5 points apart, as late steps change little."""
    share = 100 * series.column(rows, "still_right")
    if not np.isfinite(share).any():
        return 0.0, 100.0
    low, high = float(np.nanmin(share)), float(np.nanmax(share))
    room = 0.1 * max(5.0, high - low)
    low = min(low, max(0.0, high - 5.0))
    return low - room, high + room
