"""Attacks that see answers alone: how near they come to the images, and how many they fool, against their queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("queries", "distance", "success")
_LOOKS = ("-", "--", "-.", ":")


class QueryCurves(Figure):
    """Median distance, and success within eps, against the queries of an image."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("attacks",)
    file: ClassVar[str] = "queries"
    name: Literal["queries"] = "queries"

    def has_data(self, record: Record) -> bool:
        """Return whether an attack left a record of its queries."""
        return super().has_data(record) and bool(_asking(record))

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, and the images of each attack, which are those that the attacks before it left."""
        counts = ", ".join(f"{row['label']} {row['attacked']}" for row in _asking(record))
        return f"{about}; images, of those that the attacks before left: {counts}"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the curve of every one of `attacks` that has one."""
        threat = record.get("threat_model") or {}
        curves = {row["label"]: row["queries"]["curve"] for row in _asking(record)}
        return plot_queries(curves, stem, norm=threat.get("norm", ""), eps=threat.get("eps"), caption=caption)


def _asking(record: Record) -> list[Record]:
    return [row for row in record["attacks"] if (row.get("queries") or {}).get("curve")]


@style.drawing()
def plot_queries(
    curves: Mapping[str, Sequence[series.Record]],
    stem: Path,
    *,
    norm: str = "",
    eps: float | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw distance and success of attacks against their queries, a line for each attack; return the paths.

    Args:
        curves: attack label -> points with `queries` (of an image), `distance` (the median over images of the nearest
            adversarial example so far; None or absent: half of the images have none) and `success` (the share of
            images that have one within eps, 0..1). `robust_nas.evaluation.query_curve` makes them of a result.
        stem: where to write, without a suffix.
        norm: of the distance, for its axis.
        eps: the budget, a dashed line.
        caption: model, images and seeds, in a line under the plot.

    Raises:
        RunError: there is no point, or the files cannot be written.
    """
    if not any(curves.values()):
        raise RunError(
            f"there is nothing to draw for queries: expected at least one point, got {dict(curves)}"
        )
    figure, (near, fooled) = style.new_figure(1, 2, height=3.4, width=8.6, caption=caption)
    for number, (label, points) in enumerate(curves.items()):
        colour = style.CYCLE[number % len(style.CYCLE)]
        look = _LOOKS[number % len(_LOOKS)]
        queries = series.column(points, "queries")
        for axes, key, scale in ((near, "distance", 1), (fooled, "success", 100)):
            x, y = series.present(queries, scale * series.column(points, key))
            axes.step(x, y, where="post", color=colour, linestyle=look, label=label)
    if eps is not None:
        near.axhline(eps, color=style.GREY, linestyle=":", linewidth=1.2, label=f"eps {eps:.3g}")
    near.set_ylabel(f"median distance ({norm})" if norm else "median distance")
    fooled.set_ylabel("fooled within eps (%)" if eps is not None else "fooled (%)")
    fooled.set_ylim(-3, 103)
    positive = [series.column(points, "distance") for points in curves.values()]
    if any(np.nanmax(np.nan_to_num(values), initial=0) > 0 for values in positive):
        near.set_yscale("log", nonpositive="mask")
    for axes in (fooled, near):
        axes.set_xscale("log")
        axes.set_xlabel("queries of an image")
    if not any(np.isfinite(values).any() for values in positive):  # a log axis needs limits
        near.set_xlim(fooled.get_xlim())
        near.set_title("fewer than half of the images are fooled", fontsize="small")
    series.legend(near)
    table = [
        [label, *(point.get(key) for key in _KEYS)] for label, points in curves.items() for point in points
    ]
    return style.save(figure, stem, (("attack", *_KEYS), table))
