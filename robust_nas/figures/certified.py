"""The accuracy that a defence certifies, against the radius within which no perturbation can change the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("radius", "accuracy")


class CertifiedCurve(Figure):
    """Certified accuracy against the radius."""

    of: ClassVar[Job] = "evaluation"
    needs: ClassVar[tuple[str, ...]] = ("defence",)
    name: Literal["certified"] = "certified"

    def has_data(self, record: Record) -> bool:
        """Return whether a defence that certifies was evaluated."""
        return super().has_data(record) and bool(record["defence"].get("certified"))

    def caption(self, record: Record, about: str) -> str:
        """Return `about`, the defence, and the number of images."""
        found = record["defence"]
        return f"{about}; {found['name']}, {found['certified']['images']} images"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw the points of `defence.certified`."""
        found = record["defence"]["certified"]
        return plot_certified(
            found["points"], stem, norm=found["norm"], radius=found["radius"], caption=caption
        )


@style.drawing()
def plot_certified(
    points: Sequence[series.Record],
    stem: Path,
    *,
    norm: str,
    radius: float | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw certified accuracy against the radius; return the paths.

    Args:
        points: mappings with `radius` (in the certificate's norm, pixels 0..1) and `accuracy` (0..1).
        stem: where to write, without a suffix.
        norm: of the certificates.
        radius: what the threat model needs, marked on the axis; None: it has no mark.
        caption: defence, images and seeds, in a line under the plot.

    Raises:
        RunError: there is no point, or the files cannot be written.
    """
    series.require(points, "certified accuracy")
    figure, (axes,) = style.new_figure(height=3.6, width=6.0, caption=caption)
    x, y = series.column(points, "radius"), 100 * series.column(points, "accuracy")
    axes.step([*x, x[-1]], [*y, 0.0], where="pre", color=style.BLUE)
    right = max(float(x[-1]), radius or 0.0) or 1.0
    axes.set_xlim(-0.02 * right, 1.06 * right)
    axes.set_ylim(-2.5, 102.5)
    axes.set_xlabel(f"radius ({norm}, pixels on the 0..1 scale)")
    axes.set_ylabel("certified accuracy (%)")
    if radius is not None:
        series.mark(axes, radius, f"threat model, {radius:.3g}")
    return style.save(figure, stem, (_KEYS, [[point.get(key) for key in _KEYS] for point in points]))
