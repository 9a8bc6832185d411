"""A ranking: scores against the number of parameters, and against the truth where the candidates have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("rank", "name", "params", "macs", "score")


class RankedScores(Figure):
    """The scores of a ranking by size, so that what size alone explains can be seen."""

    of: ClassVar[Job] = "ranking"
    needs: ClassVar[tuple[str, ...]] = ("ranking",)

    name: Literal["ranking"] = "ranking"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `ranking`, and `agreement` where the candidates have a truth."""
        return plot_ranking(record["ranking"], stem, caption=caption, agreement=record.get("agreement"))


@style.drawing()
def plot_ranking(
    rows: Sequence[series.Record],
    stem: Path,
    *,
    caption: str = "",
    agreement: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Draw the score of every candidate by its parameters and, where rows have a `truth`, by it; return the paths.

    Args:
        rows: one mapping a candidate, with `rank`, `name`, `params`, `macs`, `score`, maybe `spread` (the standard
            deviation of the score over draws, drawn as a bar) and `truth`. One without a score is in the table alone.
        stem: where to write, without a suffix.
        caption: method, images and seed, in a line under the plot.
        agreement: `column`, and `scores`: of each its `measures`, of which `spearman` is written under the plot.

    Raises:
        RunError: there are no rows, or the files cannot be written.
    """
    series.require(rows, "a ranking")
    score, spread = (series.column(rows, key) for key in ("score", "spread"))
    params, truth = series.column(rows, "params"), series.column(rows, "truth")
    panels = [(params / 1e6, "parameters (millions)", "against size")]
    if (truth == truth).any():
        measured = "measured after training" if agreement is None else agreement["column"]
        panels.append((truth, measured, "against the truth"))
    if agreement is not None:
        caption = ". ".join(filter(None, (caption, _order(agreement))))
    figure, axes = style.new_figure(1, len(panels), height=3.2, caption=caption)
    for panel, (x, label, title) in zip(axes, panels, strict=True):
        at, found = series.present(x, score)
        bars = spread[(x == x) & (score == score)]
        if (bars == bars).all() and len(bars):
            panel.errorbar(at, found, yerr=bars, fmt="none", ecolor=style.BLUE, alpha=0.3, linewidth=0.8)
        panel.plot(at, found, "o", color=style.BLUE, markersize=3, label="candidate")
        if len(found):
            best = int(found.argmax())
            panel.plot(at[best : best + 1], found[best : best + 1], "D", color=style.VERMILLION, label="best")
        panel.set(title=title, xlabel=label, ylabel="score (higher is better)")
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # inside it would hide the best
    extra = [key for key in rows[0] if key not in _KEYS]
    return style.save(figure, stem, series.table(rows, (*_KEYS, *extra)))


def _order(agreement: Mapping[str, Any]) -> str:
    """Return Spearman's correlation of every score with the truth, in words."""
    found = []
    for name, one in agreement["scores"].items():
        value, low, high = (one["measures"]["spearman"][key] for key in ("value", "low", "high"))
        interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        found.append(f"{name} none" if value is None else f"{name} {value:.2f}{interval}")
    return f"Spearman's correlation with the truth (95 % bootstrap): {', '.join(found)}"
