"""A training epoch by epoch: accuracies, loss and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from matplotlib.ticker import MaxNLocator

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_EPOCH_KEYS = ("epoch", "loss", "train_accuracy", "clean", "robust", "learning_rate")
_FEW = 20


class TrainingCurves(Figure):
    """The curves of a training, by epoch."""

    of: ClassVar[Job] = "training"
    needs: ClassVar[tuple[str, ...]] = ("records",)

    name: Literal["training"] = "training"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `records`; a line marks `best_epoch`, and `validation_attack` is named, where the record has them."""
        return plot_training(
            record["records"],
            stem,
            best_epoch=record.get("best_epoch"),
            attack=record.get("validation_attack"),
            caption=caption,
        )


@style.drawing()
def plot_training(
    records: Sequence[series.Record],
    stem: Path,
    *,
    best_epoch: int | None = None,
    attack: str | None = None,
    caption: str = "",
) -> tuple[Path, ...]:
    """Draw accuracies, loss and learning rate of a training by epoch; return the paths.

    Args:
        records: one mapping an epoch, with `epoch` (from 0; shown from 1), `loss`, `train_accuracy` (adversarial),
            `clean` and `robust` (validation accuracies, 0..1) and `learning_rate`. A value that is None, NaN or
            absent is left out.
        stem: where to write, without a suffix.
        best_epoch: the epoch whose weights are kept, from 0.
        attack: under which the validation is robust, for its label.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no records, or the files cannot be written.
    """
    series.require(records, "a training")
    records = series.from_one(records)
    figure, (accuracy, loss) = style.new_figure(1, 2, height=3.6, caption=caption)
    x = series.column(records, "epoch")
    for key, name, colour in (
        ("clean", "validation, clean", style.NATURAL),
        ("robust", f"validation, {attack or 'robust'}", style.ADVERSARIAL),
        ("train_accuracy", "training, adversarial", style.GREY),
    ):
        at, values = series.present(x, 100 * series.column(records, key))
        if len(at):
            marker = "o" if len(at) <= len(records) // 2 or len(records) < _FEW else ""
            accuracy.plot(*series.thin(at, values), color=colour, marker=marker, markersize=3, label=name)
    accuracy.set(title="accuracy", ylabel="accuracy (%)", ylim=(0, 100))

    rate = loss.twinx()
    rate.grid(visible=False)
    rate.spines["right"].set_visible(True)
    for axes, key, name, colour, dashes in (
        (loss, "loss", "training loss", style.BLACK, "-"),
        (rate, "learning_rate", "learning rate", style.ORANGE, ":"),
    ):
        at, values = series.present(x, series.column(records, key))
        if len(at):
            marker = "o" if len(records) < _FEW else ""
            axes.plot(
                *series.thin(at, values),
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=3,
                label=name,
            )
    loss.set(title="training loss and learning rate", ylabel="loss (nats)")
    rate.set_ylabel("learning rate (dotted)", color="#8A5F00")
    rate.set_ylim(bottom=0)

    for each in (accuracy, loss):
        each.set_xlabel("epoch")
        each.set_xlim(left=0.5)  # there is no epoch 0
        each.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if best_epoch is not None:
            series.mark(each, best_epoch + 1, f"kept: epoch {best_epoch + 1} of {len(records)}")
    series.legend(accuracy)
    return style.save(figure, stem, series.table(records, _EPOCH_KEYS))
