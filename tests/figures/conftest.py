"""A figure as it was drawn, and what must hold on every page: no text on text, on a line, or off the page."""

import itertools

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from robust_nas.figures import style


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a plot and returns its figure, laid out but not painted: that its files are written is another test's matter."""
    write, seen = style.save, []

    def draw(write, format="png", **_):
        if format == "png":
            write.__self__.figure.draw_without_rendering()
        return b""

    def keep(figure, stem, table):
        seen.append(figure)
        return write(figure, stem, table)

    monkeypatch.setattr(style, "_rendered", draw)
    monkeypatch.setattr(style, "save", keep)

    def call(plot, *args, **options):
        plot(*args, tmp_path / "drawn", **options)
        return seen[-1]

    return call


@pytest.fixture
def legible():
    """Fails where a text of a drawn figure overlaps a text, touches a line, or leaves the page."""

    def check(figure):
        renderer = figure.canvas.get_renderer()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
        assert boxes
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            assert Bbox.intersection(a.padded(-0.5), b.padded(-0.5)) is None, (one, other)
        page = figure.bbox.padded(1)
        for text, box in boxes:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
        for axes in figure.axes:
            for line in axes.lines:
                points = line.get_transform().transform(line.get_xydata())
                if len(points) > 1:
                    points = np.concatenate(
                        [np.linspace(a, b, 500) for a, b in itertools.pairwise(points[:60])]
                    )
                for text, box in boxes:
                    assert not box.count_contains(points[np.isfinite(points).all(1)]), text

    return check


def texts(figure):
    """Every text that shows: of the figure, its legends, and each axes with its labels and titles."""
    found = list(figure.texts)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    found += [text for legend in legends if legend is not None for text in legend.get_texts()]
    for axes in figure.axes:
        if not axes.axison:
            continue
        found += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        # The public list of tick labels holds ticks outside the view as well.
        found += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
    return [text for text in found if text.get_visible() and text.get_text().strip()]
