"""What all figures share: colours, paper, captions, and how a figure reaches the disk.

A figure is three files in one folder, `<stem>.png`, `<stem>.svg` and `<stem>.csv`. Equal values give
equal bytes, so a re-run leaves no difference in git. Sizes are in points (1/72 inch) or inches.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from robust_nas.errors import RunError
from robust_nas.files import write_atomic

# Okabe and Ito (2008): eight colours that colour-blind readers can tell apart.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#5F5F5F"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)

NATURAL = BLUE
ADVERSARIAL = VERMILLION

WIDTH = 9.6
DPI = 160
LEGEND_SIZE = 8.0

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "image.composite_image": False,  # pictures next to each other stay pictures, in their own pixels
    "legend.frameon": False,
    "legend.fontsize": LEGEND_SIZE,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "robust_nas",
    "text.parse_math": False,
    "svg.fonttype": "none",
}

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


@contextmanager
def drawing() -> Iterator[None]:
    """Set how figures are drawn and written inside, whatever the caller's own matplotlibrc says."""
    if matplotlib.rcParams["svg.hashsalt"] == _RC["svg.hashsalt"]:  # inside another drawing: all is set
        yield
        return
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


_KEPT: ContextVar[list[Figure] | None] = ContextVar("kept", default=None)


@contextmanager
def kept() -> Iterator[list[Figure]]:
    """Keep the figures that are saved inside, as objects, in the place of writing them."""
    found: list[Figure] = []
    token = _KEPT.set(found)
    try:
        yield found
    finally:
        _KEPT.reset(token)


def new_figure(
    rows: int = 1,
    columns: int = 1,
    *,
    height: float,
    width: float = WIDTH,
    caption: str = "",
    shares: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` x `height` inches and its axes, row by row, with the caption under them.

    `shares` gives the rows' heights relative to each other; without it all are alike.
    """
    with drawing():
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False, height_ratios=shares)
        if caption:
            look: Any = {"ha": "left", "fontsize": 8, "color": GREY, "parse_math": False}
            figure.supxlabel(wrap(caption, width), x=0.01, **look)
        return figure, list(grid.flat)


def wrap(caption: str, width: float) -> str:
    """Return the caption in lines that fit `width` inches at 8 points (DejaVu: 0.53 em a letter on average)."""
    return textwrap.fill(caption, max(20, int(width * 72 / (8 * 0.56))))


def show_literally(artist: Artist) -> None:
    """Show every text inside as it is written: names between dollars are no mathematics."""
    for text in artist.findobj(Text):
        text.set_parse_math(False)


class _PlainLog(LogFormatter):
    """Labels of a logarithmic axis without powers, which would need mathematics; between decades where few are seen."""

    def __init__(self) -> None:
        super().__init__(minor_thresholds=(2, 0.5))  # decades

    def __call__(self, value: float, place: int | None = None) -> str:
        return f"{value:,.10g}" if super().__call__(value, place) else ""


def _label_plainly(figure: Figure) -> None:
    """Replace matplotlib's own labels of logarithmic axes."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(_PlainLog())
            if isinstance(axis.get_minor_formatter(), LogFormatter):
                axis.set_minor_formatter(_PlainLog())


def save(figure: Figure, stem: Path, table: Table) -> tuple[Path, ...]:
    """Write `<stem>.png`, `.svg` and `.csv` once all three could be made; return the paths.

    Each appears under its name complete or not at all; inside `kept` there are no files, and no paths. `table` is the
    header and the rows behind the figure.

    Raises:
        RunError: the folder cannot be written.
    """
    _label_plainly(figure)
    show_literally(figure)
    kept_here = _KEPT.get()
    if kept_here is not None:
        kept_here.append(figure)
        return ()
    with drawing():
        png = _rendered(FigureCanvasAgg(figure).print_png, metadata={"Software": None})
        figure.set_layout_engine(None)  # the layout stays as it is: finding it takes longer than drawing
        svg = _rendered(figure.savefig, format="svg", metadata={"Date": None})
        contents = {".png": png, ".svg": svg, ".csv": _csv(table)}
    return tuple(_write(stem.with_name(stem.name + suffix), data) for suffix, data in contents.items())


def _rendered(write: Callable[..., Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, **options)
    return buffer.getvalue()


def _csv(table: Table) -> bytes:
    header, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write the figure {path}: {error.strerror or error}") from error
    write_atomic(path, data)
    return path
