"""Robustness curves: marks stand where they should, on an axis on which small and large budgets both read."""

import csv
import math

import numpy as np
import pytest

from robust_nas.errors import RunError
from robust_nas.figures import plot_eps_curve

EPS = 8 / 255
GRID = (0, EPS / 4, EPS / 2, EPS, 2 * EPS, 0.5, 1.0)
ACCURACY = (0.846, 0.76, 0.66, 0.46, 0.18, 0.0, 0.0)
LINF = {"eps": EPS, "chance": 0.1, "norm": "linf"}


def curve(grid=GRID, accuracy=ACCURACY, images=1000, **more):
    return [
        {"eps": e, "accuracy": a, "low": max(0, a - 0.03), "high": min(1, a + 0.03), "images": images, **more}
        for e, a in zip(grid, accuracy, strict=True)
    ]


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_the_line_the_budget_and_chance_stand_where_they_should(drawn):
    axes = drawn(plot_eps_curve, curve()[::-1], **LINF).axes[0]
    line, *marks = (
        np.asarray(each.get_xydata()) for each in axes.lines if each.get_linestyle() not in ("", "None")
    )
    np.testing.assert_allclose(line, np.stack([GRID, 100 * np.array(ACCURACY)], 1))
    assert any(np.allclose(mark[:, 0], EPS) for mark in marks)
    assert any(np.allclose(mark[:, 1], 10) for mark in marks)
    assert axes.get_xlabel().startswith("eps (Linf, 0..1 scale; 8/255 = 0.031)")
    said = {text.get_text() for text in axes.texts}
    assert said == {"threat model, eps 8/255", "chance\n10%"}
    assert axes.get_ylabel().startswith("accuracy (%)")
    named = drawn(plot_eps_curve, curve(), under="PGD", **LINF).axes[0]
    assert named.get_ylabel().startswith("accuracy under PGD (%)")


def test_every_step_of_the_usual_grid_is_seen(drawn):
    axes = drawn(plot_eps_curve, curve(), **LINF).axes[0]
    places = axes.transAxes.inverted().transform(axes.transData.transform([(e, 0) for e in GRID]))[:, 0]
    assert np.diff(places).min() > 0.05
    assert 0 < places[0] < places[-1] < 1
    shown = [float(text.get_text()) for text in axes.get_xticklabels()]
    assert shown == [0, 0.0078, 0.016, 0.031, 0.063, 0.5, 1]


@pytest.mark.parametrize(
    ("norm", "eps", "label"),
    [
        ("l2", 0.5, "eps (L2 norm, pixels on the 0..1 scale)"),
        ("linf", 0.15, "eps (Linf, 0..1 scale)"),
        ("linf", 0.1, "eps (Linf, 0..1 scale)"),
        ("linf", 16 / 255, "eps (Linf, 0..1 scale; 16/255 = 0.063)"),
        ("lp", 2.0, "eps (lp)"),
    ],
)
def test_the_axis_is_in_the_norms_units(drawn, legible, norm, eps, label):
    figure = drawn(plot_eps_curve, curve(), eps=eps, chance=0.01, norm=norm)
    assert figure.axes[0].get_xlabel().startswith(label + ", axis")
    legible(figure)


def test_a_line_for_each_attack_and_clean_in_all(drawn, legible):
    names = ("fgsm", "apgd-ce", "apgd-t (dlr-targeted, 9 targets)", "square (5,000 queries)")
    rows = curve()[:1] + [row for name in names for row in curve(images=len(name), attack=name)[1:]]
    figure = drawn(plot_eps_curve, rows, **LINF, caption="residual-16-4 on cifar10, seed 0. " * 6)
    found = lines(figure)
    for name in names:
        assert list(found[name].get_xdata()) == list(GRID)
    assert len({(found[n].get_marker(), found[n].get_linestyle()) for n in names}) == len(names)
    legible(figure)


@pytest.mark.parametrize("accuracy", [ACCURACY, (1.0,) * 7, (0.1,) * 7, (0.95, 0, 0, 0, 0, 0, 0)])
@pytest.mark.parametrize("chance", [0.5, 0.1, 0.001])
def test_legible(drawn, legible, accuracy, chance):
    legible(drawn(plot_eps_curve, curve(accuracy=accuracy), eps=EPS, chance=chance, norm="linf"))


def test_one_point_is_enough_and_gaps_are_left_out(drawn, legible):
    legible(drawn(plot_eps_curve, curve()[3:4], **LINF))
    rows = curve()
    rows[1]["accuracy"] = None
    rows[2]["low"] = rows[2]["high"] = None
    rows[4]["accuracy"] = math.nan
    figure = drawn(plot_eps_curve, rows, **LINF)
    assert len(figure.axes[0].lines[0].get_xdata()) == 5


def test_csv_bytes_and_errors(tmp_path):
    first, second = (plot_eps_curve(curve(), tmp_path / name, **LINF) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert [p.name for p in first] == ["a.png", "a.svg", "a.csv"]
    with first[2].open(newline="") as file:
        read = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert read == curve()
    for rows, eps, match in (
        ([], EPS, "at least one"),
        ([{"eps": 0.1, "accuracy": None}], EPS, "none of 1 rows"),
        (curve(), 0.0, r"above 0, got 0\.0"),
        (curve(), math.nan, "got nan"),
    ):
        with pytest.raises(RunError, match=match):
            plot_eps_curve(rows, tmp_path / "c", eps=eps, chance=0.1, norm="linf")
    assert not list(tmp_path.glob("c*"))
