"""GDWS layer by layer: kernels of the channels, multiply-adds before and after, and the approximation error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.figure import Figure, Job
from robust_nas.figures.series import Record

_KEYS = (
    "name",
    "form",
    "reason",
    "kernels",
    "g_min",
    "g_median",
    "g_max",
    "error",
    "macs",
    "macs_after",
    "params",
    "params_after",
)


class CompressionLayers(Figure):
    """GDWS's layers, one by one."""

    of: ClassVar[Job] = "compression"
    needs: ClassVar[tuple[str, ...]] = ("layers",)

    name: Literal["layers"] = "layers"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `layers`."""
        return plot_layers(record["layers"], stem, caption=caption)


@style.drawing()
def plot_layers(report: Sequence[Record], stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw kernels, multiply-adds and error of every layer; return the paths.

    Args:
        report: the `layers` of `layers.json`: `name`, `form`, `g_min`, `g_median`, `g_max`, `error`, `macs`,
            `macs_after`; layers that stay as they are have no g and no error.
        stem: where to write, without a suffix.
        caption: the budget and how it was spread, in a line under the plot.

    Raises:
        RunError: there are no layers, or the files cannot be written.
    """
    if not report:
        raise RunError("there is nothing to draw of the layers: the report is empty")
    figure, axes = style.new_figure(1, 3, height=1.6 + 0.2 * len(report), caption=caption)
    places = range(len(report))
    for place, row in zip(places, report, strict=True):
        if row["kernels"] is None:
            axes[0].text(0, place, f" {row['reason']}", va="center", fontsize=6, color=style.GREY)
        else:
            axes[0].plot([row["g_min"], row["g_max"]], [place, place], color=style.BLUE, linewidth=1)
            axes[0].plot([row["g_median"]], [place], "o", color=style.BLUE, markersize=5)
            axes[2].barh(place, row["error"], color=style.VERMILLION)
        axes[1].barh(place, row["macs"] / 1e6, color="#D8D8D8")
        axes[1].barh(place, row["macs_after"] / 1e6, color=style.BLUE, height=0.5)
    axes[0].set_yticks(places, [str(row["name"]) for row in report], fontsize=7)
    for panel, title, unit in zip(
        axes,
        ("kernels a channel", "multiply-adds, before and after", "weighted squared error"),
        ("g: least, median, most", "M an image", "of the layer"),
        strict=True,
    ):
        panel.set_title(title)
        panel.set_xlabel(unit)
        panel.set_ylim(len(report) - 0.4, -0.6)
        panel.set_xlim(left=0)
        if panel is not axes[0]:
            panel.set_yticks(places, [""] * len(report))
    return style.save(figure, stem, (_KEYS, [[row[key] for key in _KEYS] for row in report]))
