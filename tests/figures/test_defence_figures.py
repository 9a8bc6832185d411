"""ROC curves of a detector, and the certified accuracy: lines, marks, tables, and what is not drawn."""

import csv

import pytest
from figure_records import CERTIFIED, ROC, with_defence

from robust_nas.errors import RunError
from robust_nas.figures import FIGURES, plot_certified, plot_roc


def test_a_curve_and_its_threshold_for_each_attack(drawn, legible):
    figure = drawn(plot_roc, ROC, caption="tiny on digits, seed 0; feature-squeezing, 64 clean images")
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["unaware, AUC 0.90"] == [[100, 100], [20, 95], [5, 75], [0, 0]]
    assert lines["adaptive, at the threshold: 10%"] == [[5, 10]]
    assert len(lines) == 5
    legible(figure)


def test_the_tables_hold_every_point(tmp_path):
    _, _, table = plot_roc(ROC, tmp_path / "roc")
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["attack", "auc", "at", "false_alarms", "detected"]
    assert len(rows) == 1 + 2 * 5
    assert rows[5] == ["unaware", "0.9", "threshold", "0.05", "0.75"]
    _, _, table = plot_certified(CERTIFIED["points"], tmp_path / "certified", norm="l2")
    assert table.read_text().splitlines() == ["radius,accuracy", "0,0.9", "0.25,0.6", "0.5,0.2"]


def test_the_certified_accuracy_falls_to_0_after_the_largest_radius(drawn, legible):
    figure = drawn(plot_certified, CERTIFIED["points"], norm="l2", radius=0.8, caption="tiny on digits")
    (axes,) = figure.axes
    curve, mark = axes.lines
    assert curve.get_xydata().tolist()[-1] == [0.5, 0]
    assert list(mark.get_xdata()) == [0.8, 0.8]
    assert axes.get_xlim()[1] > 0.8
    legible(figure)


def test_what_has_no_data_is_not_drawn(tmp_path):
    plain, full = {"defence": {"name": "blur", "roc": None, "certified": None}}, with_defence({})
    for name in ("roc", "certified"):
        assert not FIGURES.make(name).has_data(plain)
        assert FIGURES.make(name).has_data(full)
    with pytest.raises(RunError, match="nothing to draw for roc"):
        plot_roc({}, tmp_path / "roc")
    with pytest.raises(RunError, match="nothing to draw for certified accuracy"):
        plot_certified([], tmp_path / "certified", norm="l2")
