"""Gradient and perturbation saliency of a few images, before and after a training, with how well the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.figure import Figure, Job, Record

_MOST = 8
_ROWS = ("image", "gradient, before", "perturbation, before", "gradient, after", "perturbation, after")
_MAPS = [(key, when) for when in ("before", "after") for key in ("gradient", "perturbation")]


class SaliencyPictures(Figure):
    """Images and their saliency."""

    of: ClassVar[Job] = "training"
    needs: ClassVar[tuple[str, ...]] = ("saliency",)

    name: Literal["saliency"] = "saliency"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `saliency`: what there is `before` and `after` the training."""
        return plot_saliency(record["saliency"]["before"], record["saliency"]["after"], stem, caption=caption)


@style.drawing()
def plot_saliency(before: Record, after: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw images and saliency maps in columns; return the paths. The CSV holds the maps, a row a patch.

    Args:
        before: `images` (up to 8, float [N, C, H, W] in 0..1, C 1 or 3), their `labels` [N], the maps `gradient` and
            `perturbation` [N, G, G], not negative, and `agreement` [N], the rank correlation of the two, -1..1.
        after: the same of the trained network.
        stem: where to write, without a suffix.
        caption: model, data and seed, in a line under the pictures.

    Raises:
        RunError: there are no images or more than 8, or the files cannot be written.
    """
    images = np.asarray(before["images"], dtype=np.float64)
    count = len(images)
    if not 0 < count <= _MOST:
        raise RunError(f"saliency is drawn of 1 to {_MOST} images, got {count}")
    maps = [np.asarray({"before": before, "after": after}[when][key]) for key, when in _MAPS]
    scores = [np.asarray(each["agreement"]) for each in (before, after)]
    means = " and ".join(
        f"{score.mean():.2f} {when}" for score, when in zip(scores, ("before", "after"), strict=True)
    )
    agreement = f"mean rank correlation of gradient and perturbation saliency (1: the same order): {means} the training"
    figure, axes = style.new_figure(
        len(_ROWS), count, height=1.15 * len(_ROWS) + 1.2, width=max(1.2 * count + 1.6, 6.0),
        caption=f"{caption}; {agreement}" if caption else agreement,
    )  # fmt: skip
    for row, name in enumerate(_ROWS):
        for column in range(count):
            cell = axes[row * count + column]
            if row:
                cell.imshow(maps[row - 1][column], cmap="viridis", vmin=0)
            else:
                picture = images[column]
                cell.imshow(
                    picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0),
                    cmap="gray",
                    vmin=0,
                    vmax=1,
                )
            title = f"class {before['labels'][column]}" if not row else ""
            if name.startswith("perturbation"):
                cell.set_xlabel(f"{scores[row > 2][column]:.2f}", fontsize=8)
            cell.set(title=title, xticks=[], yticks=[])
            cell.grid(visible=False)
        axes[row * count].set_ylabel(name.replace(", ", "\n"), fontsize=8)
    return style.save(figure, stem, _table(before["labels"], maps, scores))


def _table(labels: Sequence[int], maps: Sequence[Any], scores: Sequence[Any]) -> style.Table:
    header = ["image", "label", "agreement_before", "agreement_after", "patch_row", "patch_column"]
    header += [f"{key}_{when}" for key, when in _MAPS]
    rows = [
        [image, label, *(float(score[image]) for score in scores), row, column]
        + [float(each[image, row, column]) for each in maps]
        for image, label in enumerate(labels)
        for row in range(maps[0].shape[1])
        for column in range(maps[0].shape[2])
    ]
    return header, rows
