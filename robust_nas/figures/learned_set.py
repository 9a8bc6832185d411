"""The pictures of a learned training set, a row a class, and a table of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.figure import Figure, Job, Record

_COLUMNS = 20  # pictures of a class in a row; the table has all
_ROWS = 20  # classes


class LearnedSetPictures(Figure):
    """The images of a learned set by class, and their targets as a table."""

    of: ClassVar[Job] = "distillation"
    needs: ClassVar[tuple[str, ...]] = ("images", "labels", "targets", "class_names")

    name: Literal["learned-set"] = "learned-set"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `images` of the classes `labels`."""
        images, labels, targets, class_names = (record[key] for key in self.needs)
        return plot_learned_set(images, labels, targets, class_names, stem, caption=caption)


@style.drawing()
def plot_learned_set(
    images: Sequence[Any],
    labels: Sequence[int],
    targets: Sequence[Sequence[float]],
    class_names: Sequence[str],
    stem: Path,
    *,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw the first 20 images of each of the first 20 classes; return the paths. The CSV has a row for every image.

    Args:
        images: float [N, C, H, W] in 0..1, with C 1 or 3.
        labels: the class of each [N].
        targets: what kernel regression learns for each [N, K].
        class_names: a name for each class [K].
        stem: where to write, without a suffix.
        caption: method, data and seed, in a line under the pictures.

    Raises:
        RunError: there is no image, or the files cannot be written.
    """
    pixels, classes = np.asarray(images, dtype=np.float64), np.asarray(labels)
    if not len(pixels) or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise RunError(f"images of a learned set have the shape {pixels.shape}; [N, 1 or 3, H, W] is needed")
    members = [np.flatnonzero(classes == number)[:_COLUMNS] for number in range(min(len(class_names), _ROWS))]
    columns = max(map(len, members))
    figure, axes = style.new_figure(
        len(members),
        columns,
        height=0.55 * len(members) + 0.6,
        width=max(0.55 * columns + 1.2, 4.0),
        caption=caption,
    )
    for row, chosen in enumerate(members):
        for column in range(columns):
            cell = axes[row * columns + column]
            if column < len(chosen):
                picture = pixels[chosen[column]].clip(0, 1)
                shown = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
                cell.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.grid(visible=False)
            cell.spines[:].set_visible(False)
        name = class_names[row]
        label = name if len(name) <= 12 else f"{name[:11]}\N{HORIZONTAL ELLIPSIS}"
        axes[row * columns].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    header = ["image", "class", "class_name", *(f"target {name}" for name in class_names)]
    rows = [
        [number, int(label), class_names[int(label)], *map(float, target)]
        for number, (label, target) in enumerate(zip(classes, targets, strict=True))
    ]
    return style.save(figure, stem, (header, rows))
