"""Accuracy of a random model against the passes whose mean gradient an attack follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.ticker import NullLocator

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("model", "eot", "accuracy", "low", "high", "images", "attack")
_LOOKS = ("--", "-.", ":")


class EOTCurve(Figure):
    """Accuracy against the passes per gradient; of a Bayesian network next to that of its mean weights."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("eot_curve",)
    file: ClassVar[str] = "eot_curve"
    name: Literal["eot-curve"] = "eot-curve"

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, the attack, and the number of images."""
        first = record["eot_curve"][0]
        return f"{about}; {first['attack']}, {first['images']} images that are right without it"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the points of `eot_curve`, with the passes of the attacks marked."""
        declared = (record.get("deployed") or {}).get("eot")
        return plot_eot_curve(record["eot_curve"], stem, declared=declared, caption=caption)


@style.drawing()
def plot_eot_curve(
    points: Sequence[series.Record], stem: Path, *, declared: int | None = None, caption: str = ""
) -> tuple[Path, ...]:
    """Draw accuracy against the passes per gradient; return the paths.

    Args:
        points: mappings with `model` (a name), `eot` (passes per gradient; None: of a deterministic network, a line
            across), `accuracy` (0..1), `low` and `high` (the 95% Wilson interval, 0..1).
        stem: where to write, without a suffix.
        declared: the passes that the attacks of the evaluation took, marked.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has a number of passes, or the files cannot be written.
    """
    curve = sorted((p for p in points if p.get("eot") is not None), key=lambda p: int(p["eot"]))
    if not curve:
        raise RunError("there is nothing to draw for the EOT curve: expected a point with eot, got none")
    figure, (axes,) = style.new_figure(height=3.5, width=5.6, caption=caption)
    x = series.column(curve, "eot")
    y, low, high = (100 * series.column(curve, key) for key in ("accuracy", "low", "high"))
    bars = np.stack([y - low, high - y])
    axes.errorbar(x, y, yerr=bars, color=style.BLUE, marker="o", capsize=3, label=str(curve[0]["model"]))
    across = [point for point in points if point.get("eot") is None]
    for number, point in enumerate(across):
        colour, look = style.CYCLE[1 + number % (len(style.CYCLE) - 1)], _LOOKS[number % len(_LOOKS)]
        axes.axhline(100 * point["accuracy"], color=colour, linestyle=look, label=str(point["model"]))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_xlim(x[0] / 1.3, x[-1] * 1.3)
    axes.set_ylim(-2.5, 102.5)
    axes.set_xlabel("forward passes per gradient (EOT)")
    axes.set_ylabel("accuracy (%), 95% Wilson interval")
    if declared is not None:
        series.mark(axes, declared, f"deployed.eot {declared}")
    if across:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return style.save(figure, stem, (_KEYS, [[point.get(key) for key in _KEYS] for point in points]))
