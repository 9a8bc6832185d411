"""Accuracy against the perturbation budget.

Budgets run from 0 over a few 1/255 to whole images, so the axis is asinh(eps / w): linear below the width w,
logarithmic above it, without a seam; w is half the threat model's eps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("eps", "accuracy", "low", "high", "images", "attack")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_WIDTH = 6.8
_NORMS = {
    "linf": "Linf, 0..1 scale",
    "l2": "L2 norm, pixels on the 0..1 scale",
    "l1": "L1 norm, pixels on the 0..1 scale",
}
_PAD = 0.03
_LETTER, _SPACE = 0.0128, 0.006  # of the axis: a letter of a tick label, and what must be free between two


class EpsCurve(Figure):
    """Accuracy against the perturbation budget."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("eps_curve",)
    file: ClassVar[str] = "eps_curve"

    name: Literal["eps-curve"] = "eps-curve"

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, the attack, and the number of images."""
        return f"{about}; PGD on the margin at each eps, {record['eps_curve'][0]['images']} images"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `eps_curve` as one line, although the number of steps may differ from point to point."""
        points = [{key: point[key] for key in point if key != "attack"} for point in record["eps_curve"]]
        threat = record["threat_model"]
        return plot_eps_curve(
            points,
            stem,
            eps=threat["eps"],
            chance=record["chance"],
            norm=threat["norm"],
            under="PGD",
            caption=caption,
        )


@style.drawing()
def plot_eps_curve(
    rows: Sequence[series.Record],
    stem: Path,
    *,
    eps: float,
    chance: float,
    norm: str,
    under: str = "",
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw accuracy against eps, a line an attack; return the paths.

    Args:
        rows: mappings with `eps` (in the norm's units, pixels 0..1), `accuracy` (0..1), `low` and `high` (the
            95% Wilson interval, 0..1, both or neither), `images` (how many were judged) and optionally
            `attack`; a row without one, such as eps 0, belongs to every line. A row without an accuracy is
            left out.
        stem: where to write, without a suffix.
        eps: the threat model's budget, marked on the axis.
        chance: what a constant answer gets right (0..1).
        norm: `linf`, `l2` or another norm's name.
        under: the one attack of all rows, for the axis: at the threat model's eps a suite may find less.
        caption: attack, images and seeds, in a line under the plot.

    Raises:
        RunError: no row has an accuracy, eps is not above 0, or the files cannot be written.
    """
    series.require(rows, "a curve over eps")
    if not (math.isfinite(eps) and eps > 0):
        raise RunError(f"a curve over eps marks the threat model's budget: expected eps above 0, got {eps}")
    drawn = [row for row in rows if np.isfinite(series.column([row], "accuracy")).all()]
    if not drawn:
        raise RunError(
            f"there is nothing to draw for a curve over eps: none of {len(rows)} rows has an accuracy"
        )
    figure, (axes,) = style.new_figure(height=3.7, width=_WIDTH, caption=caption)
    attacks = list(dict.fromkeys(row["attack"] for row in drawn if row.get("attack") is not None))
    for number, attack in enumerate(attacks or [None]):
        line = [row for row in drawn if row.get("attack") in (None, attack)]
        _draw(axes, sorted(line, key=lambda row: float(row["eps"])), number, attack)
    _eps_axis(axes, [float(row["eps"]) for row in drawn], eps, norm)
    series.mark(axes, eps, f"threat model, eps {_short(eps, norm)}")
    axes.axhline(100 * chance, color=style.GREY, linestyle=":", linewidth=1.2, zorder=1.5)
    right_edge = axes.get_yaxis_transform()
    text = axes.text(1.01, 100 * chance, f"chance\n{100 * chance:.3g}%", va="center", transform=right_edge)
    text.set(fontsize=8, color=style.GREY)
    axes.set_ylim(-2.5, 102.5)
    of = f"accuracy under {under}" if under else "accuracy"
    axes.set_ylabel(f"{of} (%), 95% Wilson interval{_counts(drawn)}")
    if len(attacks) > 1:
        longest = max(map(len, map(str, attacks)))
        ncols = max(1, min(len(attacks), int(_WIDTH * 72 / (0.6 * style.LEGEND_SIZE * longest + 40))))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=ncols)
    keys = _KEYS if attacks else _KEYS[:-1]
    return style.save(figure, stem, (keys, [[row.get(key) for key in keys] for row in rows]))


def _draw(axes: Axes, line: Sequence[series.Record], number: int, attack: str | None) -> None:
    colour = style.CYCLE[number % len(style.CYCLE)]
    x = series.column(line, "eps")
    y, low, high = (100 * series.column(line, key) for key in ("accuracy", "low", "high"))
    axes.plot(
        x,
        y,
        color=colour,
        linestyle=_DASHES[number % len(_DASHES)],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4.5,
        label=attack or "",
        zorder=3,
        clip_on=False,
    )
    finite = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(x[finite], low[finite], high[finite], color=colour, alpha=0.15, linewidth=0)
    bars = np.abs(np.stack([y - low, high - y]))[:, finite]
    axes.errorbar(x[finite], y[finite], yerr=bars, fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)


def _eps_axis(axes: Axes, values: Sequence[float], eps: float, norm: str) -> None:
    width, end = eps / 2, max(*values, eps)

    def place(value: float) -> float:
        return math.asinh(value / width) / math.asinh(end / width)

    def apart(value: float, other: float) -> bool:
        letters = (len(_brief(value)) + len(_brief(other))) / 2
        return abs(place(value) - place(other)) >= _LETTER * letters + _SPACE

    ticks: list[float] = []
    for value in (eps, 0.0, end, *sorted(set(values))):
        if all(apart(value, other) for other in ticks):
            ticks.append(value)
    axes.set_xscale("asinh", linear_width=width)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: _brief(value))
    axes.tick_params(axis="x", labelsize=8)
    whole = math.asinh(end / width)
    axes.set_xlim(width * math.sinh(-_PAD * whole), width * math.sinh((1 + _PAD) * whole))
    unit = _NORMS.get(norm.lower(), norm)
    if "/" in (short := _short(eps, norm)):
        unit += f"; {short} = {_brief(eps)}"
    axes.set_xlabel(f"eps ({unit}), axis linear near 0 and logarithmic beyond")


def _brief(value: float) -> str:
    """Return two digits, or three where two would be off by more than 3 %."""
    two = f"{value:.2g}"
    return two if math.isclose(float(two), value, rel_tol=0.03) else f"{value:.3g}"


def _short(eps: float, norm: str) -> str:
    """Return `8/255` where that is the number."""
    levels = round(255 * eps)
    if norm.lower() == "linf" and 0 < levels < 255 and math.isclose(255 * eps, levels, rel_tol=1e-4):
        return f"{levels}/255"
    return f"{eps:.3g}"


def _counts(rows: Sequence[series.Record]) -> str:
    counts = [row["images"] for row in rows if row.get("images") is not None]
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    return f"\n{most:,} images" if least == most else f"\n{least:,} to {most:,} images"
