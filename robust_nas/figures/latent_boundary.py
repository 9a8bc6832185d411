"""The way across a latent boundary: the score of the SVM along its normal, and the decoded images with their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from robust_nas.errors import RunError
from robust_nas.figures import style
from robust_nas.figures.figure import Figure, Job, Record

_MOST = 8


class LatentBoundaryPictures(Figure):
    """Images along the normals of latent boundaries."""

    of: ClassVar[Job] = "training"
    needs: ClassVar[tuple[str, ...]] = ("latent_boundary",)

    name: Literal["latent-boundary"] = "latent-boundary"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `latent_boundary`."""
        return plot_latent_boundary(record["latent_boundary"], stem, caption=caption)


@style.drawing()
def plot_latent_boundary(record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
    """Draw scores along the normals and the decoded images under them; return the paths. The CSV holds a row a point.

    Args:
        record: of N images (at most 8) and E steps: `images` [N, C, H, W] in 0..1 (C 1 or 3), `labels`, `targets` and
            `prediction_of_image` [N], `relative` [E] (eps in distances to the boundary, from 0), `distance` [N] (of
            the latents to the boundary), `score` and `prediction` [E, N], `decoded` [E, N, C, H, W].
        stem: where to write, without a suffix.
        caption: layer, model and data, in a line under the pictures.

    Raises:
        RunError: there are no images or more than 8, or the files cannot be written.
    """
    images = np.asarray(record["images"], dtype=np.float64)
    count, steps = len(images), list(record["relative"])
    if not 0 < count <= _MOST:
        raise RunError(f"a latent boundary is drawn of 1 to {_MOST} images, got {count}")
    decoded, score = np.asarray(record["decoded"]), np.asarray(record["score"])
    text = (
        "under each picture: the model's class of it, red where it is not the label; "
        "filled points: the label, hollow ones: another class"
    )
    rows = len(steps) + 2
    figure, axes = style.new_figure(
        rows, count, height=1.15 * (rows - 1) + 3.4, width=max(1.2 * count + 1.8, 6.5),
        caption=f"{caption}; {text}" if caption else text, shares=[2.2, *[1.0] * (rows - 1)],
    )  # fmt: skip
    grid: Any = axes[0].get_gridspec()
    for cell in axes[:count]:
        cell.remove()
    _scores(figure.add_subplot(grid[0, :]), record, score)
    names = ["image", *("decoded" if not step else f"{step:g}x" for step in steps)]
    for row, name in enumerate(names):
        pictures = images if row == 0 else decoded[row - 1]
        classes = record["prediction_of_image"] if row == 0 else record["prediction"][row - 1]
        for column in range(count):
            cell, picture = axes[(row + 1) * count + column], pictures[column]
            flat = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, 2)
            cell.imshow(flat, cmap="gray", vmin=0, vmax=1)
            wrong = classes[column] != record["labels"][column]
            cell.set_xlabel(
                f"{classes[column]}", fontsize=8, color=style.VERMILLION if wrong else style.BLACK
            )
            if row == 0:
                cell.set_title(f"{record['labels'][column]} to {record['targets'][column]}", fontsize=9)
            cell.set(xticks=[], yticks=[])
            cell.grid(visible=False)
        axes[(row + 1) * count].set_ylabel(name, fontsize=8)
    return style.save(figure, stem, _table(record))


def _scores(cell: Any, record: Record, score: np.ndarray[Any, Any]) -> None:
    """Draw the score of every image against eps, each in units of its distance to the boundary."""
    relative = np.asarray(record["relative"])
    for column, label in enumerate(record["labels"]):
        colour = style.CYCLE[column % len(style.CYCLE)]
        kept = np.asarray(record["prediction"])[:, column] == label
        line = "-" if column < len(style.CYCLE) else "--"
        name = f"{label} to {record['targets'][column]}"
        cell.plot(relative, score[:, column], line, color=colour, label=name)
        look: Any = {"edgecolors": colour, "s": 26, "zorder": 3}
        cell.scatter(relative[kept], score[kept, column], facecolors=colour, **look)
        cell.scatter(relative[~kept], score[~kept, column], facecolors="white", **look)
    cell.axhline(0, color=style.GREY, linewidth=0.8)
    cell.axvline(1, color=style.GREY, linewidth=0.8, linestyle=":")
    cell.set(
        title="Score of the boundary along its normal",
        xlabel="eps, in distances of the latent to the boundary",
        ylabel="score (above 0: target)",
    )
    cell.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _table(record: Record) -> style.Table:
    header = ["image", "label", "target", "distance", "relative_eps", "score", "prediction"]
    rows = [
        [
            image,
            label,
            record["targets"][image],
            record["distance"][image],
            relative,
            record["score"][step][image],
            record["prediction"][step][image],
        ]
        for image, label in enumerate(record["labels"])
        for step, relative in enumerate(record["relative"])
    ]
    return header, rows
