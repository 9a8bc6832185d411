"""A sampled search candidate by candidate: scores in the order of evaluation, and against MACs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator

from robust_nas.figures import series, style
from robust_nas.figures.figure import Figure, Job, Record

_KEYS = ("candidate", "name", "macs", "params", "score")


class SampledSearch(Figure):
    """The candidates of a sampled search, by number and by MACs."""

    of: ClassVar[Job] = "search"
    needs: ClassVar[tuple[str, ...]] = ("candidates",)

    name: Literal["sampled-search"] = "sampled-search"

    def draw(self, record: Record, stem: Path, *, caption: str = "") -> tuple[Path, ...]:
        """Draw `candidates`."""
        return plot_sampled_search(record["candidates"], stem, caption=caption)


@style.drawing()
def plot_sampled_search(
    records: Sequence[series.Record], stem: Path, *, caption: str = ""
) -> tuple[Path, ...]:
    """Draw the score of every candidate by number, with the best so far, and by MACs; return the paths.

    Args:
        records: one mapping a candidate, with `candidate` (its number), `name`, `macs`, `params` and `score`. Where the
            score is None, the candidate is not drawn, but it is in the table.
        stem: where to write, without a suffix.
        caption: how candidates were scored, images and seeds, in a line under the plot.

    Raises:
        RunError: there are no records, or the files cannot be written.
    """
    series.require(records, "a sampled search")
    figure, (order, cost) = style.new_figure(1, 2, height=3.2, caption=caption)
    number, score = (series.column(records, key) for key in ("candidate", "score"))
    at, found = series.present(number, score)
    order.plot(at, found, "o", color=style.BLUE, markersize=4, label="candidate")
    order.step(at, np.maximum.accumulate(found), where="post", color=style.VERMILLION, label="best so far")
    order.set(title="in the order of evaluation", xlabel="candidate", ylabel="score")
    order.xaxis.set_major_locator(MaxNLocator(integer=True))
    macs, found = series.present(series.column(records, "macs") / 1e6, score)
    cost.plot(macs, found, "o", color=style.BLUE, markersize=4, label="candidate")
    if len(found):
        best = int(found.argmax())
        cost.plot(macs[best : best + 1], found[best : best + 1], "D", color=style.VERMILLION, label="result")
    cost.set(title="against cost", xlabel="MACs of the final network (millions)", ylabel="score")
    for each in (order, cost):
        series.legend(each)
    extra = [key for key in records[0] if key not in _KEYS]
    return style.save(figure, stem, series.table(records, (*_KEYS, *extra)))
