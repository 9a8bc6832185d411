"""Accuracy against the passes per gradient: the points, the line of the mean network, the table."""

import pytest
from figure_records import EOT_CURVE

from robust_nas.errors import RunError
from robust_nas.figures import FIGURES, plot_eot_curve


def test_the_curve_has_its_points_in_order_and_the_mean_a_line_across(drawn, legible):
    figure = drawn(plot_eot_curve, EOT_CURVE[::-1], declared=16, caption="tiny on digits, pgd-10, 64 images")
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["posterior mean"] == [[0, 42], [1, 42]]
    curve = axes.lines[0].get_xydata().tolist()
    assert curve == [[1, 70], [4, pytest.approx(55)], [16, 41], [64, 40]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16", "64"]
    assert "deployed.eot 16" in [text.get_text() for text in axes.texts]
    legible(figure)


def test_the_table_holds_every_point(tmp_path):
    _, _, table = plot_eot_curve(EOT_CURVE, tmp_path / "eot")
    rows = table.read_text().splitlines()
    assert rows[0] == "model,eot,accuracy,low,high,images,attack"
    assert rows[1].startswith("random,1,0.7,")
    assert rows[-1].startswith("posterior mean,,0.42,")
    assert len(rows) == 1 + len(EOT_CURVE)


def test_what_has_no_passes_is_no_curve(tmp_path):
    with pytest.raises(RunError, match="nothing to draw for the EOT curve"):
        plot_eot_curve(EOT_CURVE[-1:], tmp_path / "eot")
    assert not FIGURES.make("eot-curve").has_data({"eot_curve": []})
