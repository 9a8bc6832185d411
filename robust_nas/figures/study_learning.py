"""How the configurations learn: training loss and validation robust accuracy by epoch, mean and range over seeds.

Up to seven configurations have a colour each and a band from the lowest to the highest seed; more are coloured
by what they reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures import study_points as of
from robust_nas.figures.series import Array, Record
from robust_nas.figures.study_figure import StudyFigure, response_of

_DASHES = ("-", "--", "-.", ":")
_PANELS = (
    ("loss", "training loss", "loss (nats)", 1.0),
    ("robust", "robust accuracy, validation split", "accuracy (%)", 100.0),
)


class StudyLearning(StudyFigure):
    """The learning curves of the trainings."""

    heading: ClassVar[str] = "Learning curves"
    file: ClassVar[str] = "learning"

    name: Literal["study-learning"] = "study-learning"

    def applies(self, record: Record) -> bool:
        """Return whether epochs were logged."""
        return any(curve.get("epochs") for point in record["points"] for curve in point.get("curves") or ())

    def says(self, record: Record) -> str:
        """Return the meaning of lines and bands."""
        return (
            "Mean over seeds by epoch; with up to seven configurations the band spans the seeds. Robust accuracy here "
            f"is on the validation split under {_attack(record)}; on the test set it is under the attacks that follow."
        )

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `curves` of `points`."""
        metric = response_of(record)
        return plot_study_learning(record["points"], stem, response=metric, caption=of.words(caption))


def _attack(tree: Record) -> str:
    """Return the name of the attack that the recipe validates with."""
    return str((tree["recipe"].get("validation_attack") or {}).get("name", "the recipe's validation attack"))


@style.drawing()
def plot_study_learning(
    points: Sequence[Record], stem: Path, *, response: str = "robust", caption: str = ""
) -> tuple[Path, ...]:
    """Draw two panels of learning curves, a line a configuration; return the paths.

    Args:
        points: `points` of an analysis: mappings with `name`, `metrics` and `curves` (one a seed, with `epochs`:
            `epoch` (from 0; shown from 1), `loss`, `robust` (0..1) and others; None where not measured). Points without
            are left out.
        stem: where to write, without a suffix.
        response: what colours the lines where there are more than seven.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no point has curves, or the files cannot be written.
    """
    series.require(points, "learning curves")
    shown = [
        p for p in of.ranked(points, response) if any(curve.get("epochs") for curve in p.get("curves") or ())
    ]
    if not shown:
        raise RunError(f"there is nothing to draw for learning curves: none of {len(points)} has any epoch")
    few = len(shown) <= len(style.CYCLE)
    lines = -(-len(shown) // 3) if few else 0
    figure, panels = style.new_figure(1, 2, height=3.6 + 0.2 * lines, caption=caption)
    levels = np.array([of.estimate(point, response)[0] for point in shown])
    known = levels[np.isfinite(levels)]
    ends = (known.min() - 1e-9, known.max() + 1e-9) if len(known) else (0.0, 1.0)
    scale, ramp = matplotlib.colors.Normalize(*ends), matplotlib.colormaps["viridis_r"]
    for axes, (key, title, label, factor) in zip(panels, _PANELS, strict=True):
        for i, (point, level) in enumerate(zip(shown, levels, strict=True)):
            colour = style.CYCLE[i] if few else ramp(scale(level)) if np.isfinite(level) else of.NOT_MEASURED
            dash = _DASHES[i % 4] if few else "-"
            _line(
                axes,
                point,
                key,
                factor,
                band=few,
                color=colour,
                linestyle=dash,
                linewidth=1.6 if few else 1.0,
            )
        axes.set_title(title)
        axes.set(xlabel="epoch", ylabel=label)
        axes.set_xlim(left=0.5)  # there is no epoch 0
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if not axes.lines:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#707070")
    if few:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
    else:
        bar = figure.colorbar(matplotlib.cm.ScalarMappable(scale, ramp), ax=panels)
        bar.set_label(of.axis(response))
        bar.outline.set_visible(False)
    keys = ("epoch", "loss", "train_accuracy", "clean", "robust")
    table = [
        [point["name"], curve["seed"], *(epoch.get(key) for key in keys)]
        for point in shown
        for curve in point["curves"]
        for epoch in series.from_one(curve["epochs"])
    ]
    return style.save(figure, stem, (["name", "seed", *keys], table))


def _line(axes: Axes, point: Record, key: str, factor: float, *, band: bool, **look: Any) -> None:
    """Return the mean over the seeds that have the epoch, and the band from the lowest to the highest of them."""
    by_epoch: dict[int, list[float]] = {}
    for curve in point["curves"]:
        x, y = _series(curve["epochs"], key, factor)
        for at, value in zip(x, y, strict=True):
            by_epoch.setdefault(int(at), []).append(float(value))
    if not by_epoch:
        return
    epochs = sorted(by_epoch)
    rows = [by_epoch[epoch] for epoch in epochs]
    label = of.name(point, 34) if band else None
    single: dict[str, Any] = {"marker": "o", "markersize": 3} if len(epochs) == 1 else {}
    axes.plot(epochs, [float(np.mean(row)) for row in rows], label=label, **look, **single)
    if band and any(len(row) > 1 for row in rows):
        low, high = [min(row) for row in rows], [max(row) for row in rows]
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _series(epochs: Sequence[Mapping[str, Any]], key: str, factor: float) -> tuple[Array, Array]:
    return series.present(
        series.column(series.from_one(epochs), "epoch"), factor * series.column(epochs, key)
    )
