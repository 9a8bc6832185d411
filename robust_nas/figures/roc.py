"""A detector against each attack: images that it detects, over clean images that it rejects, for every threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("false_alarms", "detected")
_LOOKS = ("-", "--", "-.")
_MARKERS = ("o", "s", "D")


class DetectionCurves(Figure):
    """Detected images against false alarms, of the unaware and of the adaptive attack."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("defence",)
    name: Literal["roc"] = "roc"

    def has_data(self, record: Record) -> bool:
        """Return whether a detector was evaluated, and an attack fooled the class of an image."""
        return super().has_data(record) and bool(record["defence"].get("roc"))

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, the defence, and the images of each curve."""
        found = record["defence"]
        counts = ", ".join(f"{kind} {curve['images']}" for kind, curve in found["roc"].items())
        clean = next(iter(found["roc"].values()))["clean_images"]
        return f"{about}; {found['name']}, {clean} clean images; attacked ones of a wrong class: {counts}"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the curves of `defence.roc`."""
        return plot_roc(record["defence"]["roc"], stem, caption=caption)


@style.drawing()
def plot_roc(curves: Mapping[str, Record], stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw detected images against false alarms, a line an attack; return the paths.

    Args:
        curves: attack -> `points` (each with `false_alarms` and `detected`, 0..1), `auc`, and `at_threshold`, the same
            two rates at the detector's own threshold. `robust_nas.evaluation.detection.roc` makes them.
        stem: where to write, without a suffix.
        caption: detector, images and seeds, in a line under the plot.

    Raises:
        RunError: there is no curve, or the files cannot be written.
    """
    if not curves:
        raise RunError("there is nothing to draw for roc: expected at least one curve, got none")
    figure, (axes,) = style.new_figure(height=4.2, width=5.2, caption=caption)
    axes.plot([0, 100], [0, 100], color=style.GREY, linestyle=":", linewidth=1.2, label="chance, AUC 0.50")
    for number, (attack, curve) in enumerate(curves.items()):
        colour = style.CYCLE[number % len(style.CYCLE)]
        x, y = (100 * series.column(curve["points"], key) for key in _KEYS)
        look = _LOOKS[number % len(_LOOKS)]
        axes.plot(x, y, color=colour, linestyle=look, label=f"{attack}, AUC {curve['auc']:.2f}")
        here = [[100 * curve["at_threshold"][key]] for key in _KEYS]
        marker = _MARKERS[number % len(_MARKERS)]
        label = f"{attack}, at the threshold: {here[1][0]:.0f}%"
        axes.plot(*here, color=colour, marker=marker, linestyle="none", markersize=7, label=label)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("clean images rejected (%)")
    axes.set_ylabel("attacked images detected (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    table = [
        [attack, curve["auc"], at, *(point[key] for key in _KEYS)]
        for attack, curve in curves.items()
        for at, point in [("", each) for each in curve["points"]] + [("threshold", curve["at_threshold"])]
    ]
    return style.save(figure, stem, (("attack", "auc", "at", *_KEYS), table))
