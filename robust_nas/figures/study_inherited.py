"""Whether inherited weights rank architectures as their own training does: one score against the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures import study_points as of
from robust_nas.figures.series import Record
from robust_nas.figures.study_figure import StudyFigure, response_of


class StudyInherited(StudyFigure):
    """Inherited weights against training alone."""

    heading: ClassVar[str] = "Inherited weights"
    file: ClassVar[str] = "inherited"

    name: Literal["study-inherited"] = "study-inherited"

    def applies(self, record: Record) -> bool:
        """Return whether architectures were scored both ways."""
        return bool((record.get("inherited") or {}).get("pairs"))

    def says(self, record: Record) -> str:
        """Return which two scores are compared."""
        return "Each architecture scored with weights inherited from the supernet, and trained alone."

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the `pairs` of `inherited`."""
        numbers = of.numbers(record["points"], response_of(record))
        return plot_study_inherited(record["inherited"], stem, numbers=numbers, caption=of.words(caption))


@style.drawing()
def plot_study_inherited(
    inherited: Record, stem: Path, *, numbers: Mapping[str, str] | None = None, caption: str = ""
) -> tuple[Path, ...]:
    """Draw standalone against inherited robust accuracy, with Kendall's tau; return the paths.

    Args:
        inherited: `inherited` of an analysis: `pairs` (`name`, `inherited`, `standalone`; 0..1), `tau` and its
            `interval`, and `undecided`: why the scores say nothing. A pair without both numbers is left out.
        stem: where to write, without a suffix.
        numbers: what is written instead of a name for which there is no room, by name.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: no pair has both scores, or the files cannot be written.
    """
    pairs = inherited.get("pairs") or []
    series.require(pairs, "inherited scores")
    scores = 100 * np.stack([series.column(pairs, key) for key in ("inherited", "standalone")], axis=1)
    both = np.isfinite(scores).all(axis=1)
    if not both.any():
        raise RunError(f"there is nothing to draw for inherited scores: none of {len(pairs)} pairs has both")
    figure, (axes,) = style.new_figure(height=4.2, width=5.6, caption=caption)
    axes.plot(*scores[both].T, linestyle="", marker="o", markersize=5, color=style.BLUE)
    axes.margins(0.12)
    axes.set_xlabel("robust accuracy with inherited weights (%)")
    axes.set_ylabel("robust accuracy, trained alone (%)")
    if inherited.get("tau") is not None:
        text = f"Kendall tau {inherited['tau']:.2f}"
        if inherited.get("interval"):
            text += " [{:.2f}, {:.2f}]".format(*inherited["interval"])
        text += f", {both.sum()} architectures"
        text += "\nundecided: not above chance" if inherited.get("undecided") else ""
        axes.set_title(text, fontweight="normal")

    def short(place: int) -> str:
        text = str(pairs[place]["name"])
        return (numbers or {}).get(text, of.name(pairs[place]))

    order = sorted(map(int, np.flatnonzero(both)), key=lambda i: -scores[i, 1])
    of.place_names(figure, axes, [(*scores[i], of.name(pairs[i]), short(i)) for i in order], 7)
    header = ("name", "inherited", "standalone")
    return style.save(figure, stem, (header, [[pair.get(key) for key in header] for pair in pairs]))
