"""A search step by step: losses, gamma, alpha gradients, entropy, skip connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_STEP_KEYS = (
    "step",
    "epoch",
    "stage",
    "loss_weights",
    "loss_natural",
    "loss_adversarial",
    "gamma",
    "norm_natural",
    "norm_adversarial",
    "cosine",
    "learning_rate",
)


class SearchCurves(Figure):
    """The curves of a search, by step."""

    of: ClassVar[Job] = "search"
    needs: ClassVar[tuple[str, ...]] = ("records",)

    name: Literal["search"] = "search"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `records`; a line marks the first step of stage 2."""
        records = record["records"]
        stage2 = next((step["step"] for step in records if step.get("stage") == 2), None)
        return plot_search(records, stem, stage2_from_step=stage2, caption=caption)


@style.drawing()
def plot_search(
    records: Sequence[series.Record], stem: Path, *, stage2_from_step: int | None = None, caption: str = ""
) -> tuple[Path, ...]:
    """Draw losses, gamma, gradients, entropy and skips of a search by step; return the paths.

    Args:
        records: one mapping a step, with `step`, `epoch` (from 0; in the CSV from 1), `stage`, `loss_weights`
            (training, adversarial), `loss_natural` and `loss_adversarial` (validation), `gamma`, `norm_natural`,
            `norm_adversarial`, `cosine`, `learning_rate`, and the mappings kind -> number `entropy` (nats) and
            `skips`. A value that is None, NaN or absent is left out.
        stem: where to write, without a suffix.
        stage2_from_step: the first step of stage 2.
        caption: attack, eps, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no records, or the files cannot be written.
    """
    series.require(records, "a search")
    figure, axes = style.new_figure(2, 3, height=5.4, caption=caption)
    losses, gamma, norms, cosine, entropy, skips = axes
    x = series.column(records, "step")

    def line(name: str, place: int, key: str, colour: str, part: str | None = None) -> None:
        series.draw(axes[place], x, series.column(records, key, part), label=name, colour=colour)

    line("training, adversarial", 0, "loss_weights", style.GREY)
    line("validation, natural", 0, "loss_natural", style.NATURAL)
    line("validation, adversarial", 0, "loss_adversarial", style.ADVERSARIAL)
    losses.set(title="losses", ylabel="loss (nats)")
    line("gamma", 1, "gamma", style.GREEN)
    gamma.set(title="MGDA weight", ylabel="gamma: weight of natural", ylim=(-0.03, 1.03))
    line("natural", 2, "norm_natural", style.NATURAL)
    line("adversarial", 2, "norm_adversarial", style.ADVERSARIAL)
    norms.set(title="alpha gradients", ylabel="L2 norm (nats)")
    if any((series.column(records, key) > 0).any() for key in ("norm_natural", "norm_adversarial")):
        norms.set_yscale("log", nonpositive="mask")
    line("cosine", 3, "cosine", style.PURPLE)
    cosine.set(title="gradient agreement", ylabel="cosine(natural, adversarial)", ylim=(-1.05, 1.05))
    cosine.axhline(0, color="#A0A0A0", linewidth=0.8)
    for name, colour in zip(series.parts(records, "entropy"), style.CYCLE, strict=False):
        line(name, 4, "entropy", colour, name)
    entropy.set(title="alpha entropy", ylabel="mean over edges (nats)")
    kinds = series.parts(records, "skips")
    for i, (name, colour) in enumerate(zip(kinds, style.CYCLE, strict=False)):
        at, count = series.thin(*series.present(x, series.column(records, "skips", name)))
        # Counts coincide often: the later line is thinner, and the earlier shows on both sides of it.
        width = 1.3 + 1.0 * (len(kinds) - 1 - i)
        skips.step(at, count, where="post", color=colour, label=name, linewidth=width)
    skips.set(title="skip connections", ylabel="derived edges that are skips")
    skips.yaxis.set_major_locator(MaxNLocator(integer=True))
    skips.set_ylim(bottom=-0.2)

    first, last = np.nanmin(x), np.nanmax(x)
    for each in axes:
        each.set_xlabel("search step")
        each.set_xlim(first - 0.03 * (last - first or 1), last + 0.03 * (last - first or 1))
        each.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if stage2_from_step is not None:
            series.mark(each, stage2_from_step, "stage 2")
        series.legend(each)
    return style.save(figure, stem, series.table(series.from_one(records), _STEP_KEYS, ("entropy", "skips")))
