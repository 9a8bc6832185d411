"""The training of an attack's generator, epoch by epoch: its losses, and its success on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from matplotlib.ticker import MaxNLocator

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_EPOCH_KEYS = (
    *("epoch", "stage", "loss", "adversarial", "gan", "hinge", "discriminator"),
    *("success", "validation_loss", "learning_rate"),
)
_LOSSES = (
    ("adversarial", "adversarial (nats)", style.ADVERSARIAL),
    ("gan", "GAN, generator", style.NATURAL),
    ("discriminator", "GAN, discriminator", style.GREEN),
    ("hinge", "hinge (L2)", style.GREY),
)
_FEW = 20


class GeneratorCurves(Figure):
    """The curves of a generator's training, by epoch."""

    of: ClassVar[Job] = "attack"
    needs: ClassVar[tuple[str, ...]] = ("records",)
    file: ClassVar[str] = "generator"

    name: Literal["generator"] = "generator"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `records`; a line marks `best_epoch` where the record has it."""
        return plot_generator(record["records"], stem, best_epoch=record.get("best_epoch"), caption=caption)


@style.drawing()
def plot_generator(
    records: Sequence[series.Record], stem: Path, *, best_epoch: int | None = None, caption: str = ""
) -> tuple[Path, ...]:
    """Draw losses and success of a generator's training by epoch; return the paths.

    Args:
        records: one mapping an epoch, with `epoch` (from 0; shown from 1), `stage`, `adversarial`, `gan`, `hinge` and
            `discriminator` (losses without their weights) and `success` (0..1). What is absent is left out.
        stem: where to write, without a suffix.
        best_epoch: the epoch whose generator is kept, from 0.
        caption: attack, eps, images and seed, in a line under the plot.

    Raises:
        RunError: there are no records, or the files cannot be written.
    """
    series.require(records, "the training of an attack")
    records = series.from_one(records)
    figure, (losses, success) = style.new_figure(1, 2, height=3.6, caption=caption)
    x = series.column(records, "epoch")
    marker = "o" if len(records) < _FEW else ""
    for key, name, colour in _LOSSES:
        at, values = series.present(x, series.column(records, key))
        if len(at):
            losses.plot(*series.thin(at, values), color=colour, marker=marker, markersize=3, label=name)
    losses.set(title="training losses, without weights", ylabel="loss")
    losses.set_ylim(bottom=0)
    at, values = series.present(x, 100 * series.column(records, "success"))
    if len(at):
        success.plot(
            *series.thin(at, values), color=style.ADVERSARIAL, marker=marker, markersize=3, label="validation"
        )
    success.set(title="targeted success", ylabel="answered with the target (%)", ylim=(0, 100))
    first = sum(record.get("stage") == 1 for record in records)
    for axes in (losses, success):
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0.5)  # there is no epoch 0
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if first > 0:
            axes.axvspan(
                0.5, first + 0.5, color=style.GREY, alpha=0.12, linewidth=0, label="stage 1: attacker"
            )
        if best_epoch is not None:
            series.mark(axes, best_epoch + 1, f"kept: epoch {best_epoch + 1} of {len(records)}")
    series.legend(losses)
    return style.save(figure, stem, series.table(records, _EPOCH_KEYS))
