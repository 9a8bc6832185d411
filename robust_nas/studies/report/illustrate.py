"""Draw the figures that a study's analysis has data for, with captions that say what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robust_nas.figures import FIGURES, Drawn, Figure, draw_figures
from robust_nas.spaces.rules import ROBUSTSCALING_DEPTH_SHARE, WD_RANGE

PUBLISHED = {
    "r_d": (ROBUSTSCALING_DEPTH_SHARE, ROBUSTSCALING_DEPTH_SHARE, "Huang, Lu, Deb and Boddeti 2023"),
    "wd_ratio": (*WD_RANGE, "Peng et al. 2023, by a third party's notes"),
}


def illustrate(tree: Mapping[str, Any], folder: Path, own: Iterable[Figure] = ()) -> list[Drawn]:
    """Draw the built-in figures of studies and those of the user's `own`; return what was drawn, in this order.

    Files of an earlier report with more data are removed.
    """
    figures = [*(FIGURES.make(name) for name in FIGURES.built_in), *own]
    drawn = draw_figures("study", {**tree, "published": PUBLISHED}, folder, figures=figures)
    stems = {figure.stem for figure in figures if figure.of == "study"}
    for stem in stems - {each.stem for each in drawn}:
        for suffix in (".png", ".svg", ".csv"):
            (folder / f"{stem}{suffix}").unlink(missing_ok=True)
    return drawn
