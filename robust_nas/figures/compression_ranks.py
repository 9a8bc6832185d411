"""Low-rank training by epochs: how far the weights are from low rank, how robust their projection is, the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from robust_nas.errors import RunError
from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job
from robust_nas.figures.series import Record


class CompressionRanks(Figure):
    """A low-rank training, by epoch."""

    of: ClassVar[Job] = "compression"
    needs: ClassVar[tuple[str, ...]] = ("records",)

    name: Literal["ranks"] = "ranks"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `records`."""
        return plot_ranks(record["records"], stem, caption=caption)


@style.drawing()
def plot_ranks(
    records: Sequence[Record], stem: Path, *, attack: str | None = None, caption: str = ""
) -> tuple[Path, ...]:
    """Draw the residuals, the validation accuracies and the final ranks; return the paths.

    Args:
        records: an epoch each: `epoch` (from 0; shown from 1), `primal_residual`, `primal_residual_max`, `clean` and
            `robust` (0..1, or None) and `ranks` (layer to its ranks).
        stem: where to write, without a suffix.
        attack: under which the validation is robust, for its label.
        caption: ratio, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no records, or the files cannot be written.
    """
    if not records:
        raise RunError("there is nothing to draw of a low-rank training: no epoch was logged")
    records = series.from_one(records)
    names = list(dict.fromkeys(name for record in records for name in record["ranks"]))
    figure, axes = style.new_figure(1, 3, height=3.4 + 0.05 * len(names), caption=caption)
    epochs = [record["epoch"] for record in records]
    for key, label, dash in (
        ("primal_residual", "all layers", "-"),
        ("primal_residual_max", "worst layer", "--"),
    ):
        axes[0].plot(epochs, [record[key] for record in records], dash, color=style.BLUE, label=label)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("||W - Z|| / ||W||")
    axes[0].set_title("distance from low rank")
    axes[0].legend()
    judged = [record for record in records if record["robust"] is not None]
    for key, colour, marker in (("clean", style.NATURAL, "o"), ("robust", style.ADVERSARIAL, "s")):
        x, y = [r["epoch"] for r in judged], [100 * r[key] for r in judged]
        label = attack or key if key == "robust" else key
        axes[1].plot(x, y, marker=marker, markersize=3.5, color=colour, label=label)
    axes[1].set_ylabel("accuracy of the projected network, %")
    axes[1].set_title("validation split")
    axes[1].legend()
    last = records[-1]["ranks"]
    rows = [(name, mode, rank) for name, ranks in last.items() for mode, rank in enumerate(ranks)]
    for place, (name, mode, rank) in enumerate(rows):
        kind = ("in", "out")[mode] if len(last[name]) == 2 else "rank"
        colour = {"in": style.SKY, "out": style.BLUE, "rank": style.GREEN}[kind]
        axes[2].barh(place, rank, color=colour)
        axes[2].text(
            rank, place, f" {rank}" if kind == "rank" else f" {rank} {kind}", va="center", fontsize=6
        )
    axes[2].set_yticks(range(len(rows)), [name if not mode else "" for name, mode, _ in rows], fontsize=6)
    axes[2].invert_yaxis()
    axes[2].set_xlabel("rank")
    axes[2].set_title("final ranks")
    axes[2].margins(x=0.15)
    for panel in axes[:2]:
        panel.set_xlabel("epoch")
        panel.set_xlim(left=0.5)  # there is no epoch 0
    header = ["epoch", "primal_residual", "primal_residual_max", "rho", "clean", "robust", *names]
    table = [
        [
            *(record.get(key) for key in header[:6]),
            *("x".join(map(str, record["ranks"].get(name, ()))) for name in names),
        ]
        for record in records
    ]
    return style.save(figure, stem, (header, table))
