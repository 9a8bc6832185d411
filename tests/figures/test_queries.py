"""Curves over queries: a line an attack on two axes, a gap where half of the images have none, and the table."""

import csv

import numpy as np
import pytest

from robust_nas.errors import RunError
from robust_nas.figures import FIGURES, plot_queries

QUERIES = (1, 10, 100, 1000, 5000)


def curve(distances, success):
    return [
        {"queries": q, "distance": d, "success": s}
        for q, d, s in zip(QUERIES, distances, success, strict=True)
    ]


CURVES = {
    "square-5000": curve((None, None, None, 0.03, 0.03), (0, 0.1, 0.3, 0.6, 0.8)),
    "hop-skip-jump-5000": curve((None, 0.4, 0.2, 0.06, 0.02), (0, 0, 0.1, 0.4, 0.7)),
}


def test_a_line_for_each_attack_on_both_axes_and_the_budget(drawn, legible):
    figure = drawn(
        plot_queries, CURVES, norm="linf", eps=0.03, caption="wrn-10-1 on digits, 64 images, seed 0"
    )
    near, fooled = figure.axes
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in near.lines}
    np.testing.assert_allclose(
        lines["hop-skip-jump-5000"], [(10, 0.4), (100, 0.2), (1000, 0.06), (5000, 0.02)]
    )
    np.testing.assert_allclose(lines["square-5000"], [(1000, 0.03), (5000, 0.03)])
    assert np.allclose(lines["eps 0.03"][:, 1], 0.03)
    assert [line.get_ydata()[-1] for line in fooled.lines] == [80, 70]
    assert near.get_ylabel() == "median distance (linf)"
    assert fooled.get_ylabel() == "fooled within eps (%)"
    assert {near.get_xscale(), fooled.get_xscale(), near.get_yscale()} == {"log"}
    legible(figure)


def test_without_any_distance_the_other_axis_is_drawn(drawn):
    figure = drawn(plot_queries, {"a": curve([None] * 5, [0] * 5)})
    assert figure.axes[1].get_ylabel() == "fooled (%)"
    assert len(figure.axes[1].lines) == 1


def test_it_is_written_where_no_attack_fools_half_of_the_images(tmp_path):
    for eps in (None, 0.1):
        assert all(
            path.stat().st_size
            for path in plot_queries({"a": curve([None] * 5, [0] * 5)}, tmp_path / "q", eps=eps)
        )


def test_the_table_holds_every_point(tmp_path):
    _, _, table = plot_queries(CURVES, tmp_path / "q")
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["attack", "queries", "distance", "success"]
    assert len(rows) == 11
    assert rows[1] == ["square-5000", "1", "", "0"]


def test_what_has_no_curve_is_not_drawn(tmp_path):
    with pytest.raises(RunError, match="nothing to draw for queries"):
        plot_queries({"a": []}, tmp_path / "q")
    figure = FIGURES.make("queries")
    assert not figure.has_data({"attacks": [{"label": "pgd"}, {"label": "old", "queries": {}}]})
