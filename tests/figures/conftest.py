"""A figure as it was drawn, and what must hold on every page: no text on text, on a line, or off the page."""

import numpy as np
import pytest

from robust_nas.figures import style


@pytest.fixture(autouse=True, scope="module")
def unrendered():
    """Figures are rendered: they are what is tested here."""


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls a plot and returns its figure, laid out but not painted: files are another test's matter."""
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
        shrunk = np.array([box.padded(-0.5).extents for _, box in boxes])  # [T, (x0, y0, x1, y1)]
        low, high = (np.sort(shrunk.reshape(-1, 2, 2), axis=1)[:, end] for end in (0, 1))
        meet = (np.maximum(low[:, None], low) <= np.minimum(high[:, None], high)).all(2)
        for one, other in np.argwhere(np.triu(meet, 1)):
            pytest.fail(f"{boxes[one][0]!r} lies on {boxes[other][0]!r}")
        page = figure.bbox.padded(1)
        for text, box in boxes:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
        for axes in figure.axes:
            for line in axes.lines:
                points = line.get_transform().transform(line.get_xydata())
                if len(points) > 1:
                    points = np.linspace(points[:60][:-1], points[1:60], 500).reshape(-1, 2)
                points = points[np.isfinite(points).all(1)]
                for text, box in boxes:
                    assert not ((box.min < points) & (points < box.max)).all(1).any(), text

    return check


def texts(figure):
    """Every text that shows: of the figure, its legends, and each axes with its labels and titles."""
    found = list(figure.texts)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    found += [text for legend in legends if legend is not None for text in legend.get_texts()]
    for axes in figure.axes:
        found += axes.texts
        if not axes.axison:
            continue
        found += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        # The public list of tick labels holds ticks outside the view as well.
        found += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
    return [text for text in found if text.get_visible() and text.get_text().strip()]
