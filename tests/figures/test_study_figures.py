"""Figures of a study: everything in its place and legible for few and many configurations, with and without gaps."""

import copy
import csv
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from study_trees import study_tree

from robust_nas import figures
from robust_nas.errors import RunError
from robust_nas.figures import FIGURES, style
from robust_nas.figures import study_points as of
from robust_nas.figures.study_effects import STATUS
from robust_nas.figures.study_heat_map import busiest_factors

CAPTION = "PGD-20, Linf eps 0.1, 360 images of digits, seeds 0, 1 and 2. " * 2


def budgets(tree, *where, **more):
    return figures.plot_study_budgets(tree["points"], *where, reference=tree["reference"], **more)


def curve(tree, *where, **more):
    options = {
        "along": "last_stage_params_share",
        "optimum": tree["optimum"],
        "published": (0.36, 0.36, "WRN-34-R"),
    }
    return figures.plot_study_curve(tree["points"], *where, **options, **more)


def effects(tree, *where, **more):
    return figures.plot_study_effects(tree["rules"], tree["contrasts"], *where, **more)


def inherited(tree, *where, **more):
    return figures.plot_study_inherited(tree["inherited"], *where, **more)


def of_points(plot):
    def call(tree, *where, **more):
        return plot(tree["points"], *where, **more)

    return call


PLOTS = {
    "budgets": budgets,
    "curve": curve,
    "effects": effects,
    "heat map": of_points(figures.plot_study_heat_map),
    "inherited": inherited,
    "learning": of_points(figures.plot_study_learning),
    "lipschitz": of_points(figures.plot_study_lipschitz),
    "seeds": of_points(figures.plot_study_seeds),
    "stages": of_points(figures.plot_study_stages),
}


@pytest.mark.parametrize("n", [4, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_legible(drawn, legible, plot, n):
    legible(drawn(lambda *a, **k: plot(study_tree(n, failed=1), *a, **k), caption=CAPTION))


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_one_seed_odd_names_and_missing_numbers(drawn, legible, plot):
    tree = study_tree(6, seeds=1)
    for i, point in enumerate(tree["points"]):
        point["name"] = f"a $ridiculous_{{name}}$ & <b>{'long' * 12}</b> {i}\n"
    tree["points"][0]["metrics"]["robust"] = None
    tree["points"][1]["metrics"] = {}
    tree["points"][2]["curves"] = tree["points"][2]["stages"] = []
    tree["points"][3]["lip_stages"] = {"initial": [], "trained": []}
    tree["points"][4]["lip_stages"]["trained"] = []
    tree["inherited"]["pairs"][0]["inherited"] = None
    legible(drawn(lambda *a, **k: plot(tree, *a, **k)))


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_nothing_to_draw_is_said(tmp_path, plot):
    tree = study_tree(3)
    for point in tree["points"]:
        point.update(metrics={}, stages=[], curves=[], lip_stages={"initial": [], "trained": []})
    tree.update(contrasts=[], rules=tree["rules"][-1:], inherited={"pairs": []}, optimum=None)
    for empty in (tree, {**tree, "points": [], "rules": []}):
        with pytest.raises(RunError, match="nothing to draw"):
            plot(empty, tmp_path / "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [1, 2])
@pytest.mark.parametrize("plot", [PLOTS[name] for name in PLOTS if name != "heat map"])
def test_all_failed_but_one_or_two(drawn, legible, plot, left):
    legible(drawn(lambda *a, **k: plot(study_tree(5, failed=5 - left), *a, **k)))


def test_front_reference_and_uniform_are_told_apart(drawn):
    tree = study_tree(9)
    uniform = tree["points"][4]["name"]
    figure = drawn(lambda *a, **k: budgets(tree, *a, uniform=[uniform], **k))
    for axes, budget in zip(figure.axes, ("params", "macs"), strict=True):
        marks = {}
        for line in axes.lines:
            if line.get_linestyle() == "None":
                marks[round(float(line.get_ydata()[0]), 9)] = (
                    line.get_marker(),
                    to_hex(line.get_color()).upper(),
                )
        for point in tree["points"]:
            shape = {tree["reference"]: "D", uniform: "s"}.get(point["name"], "o")
            mark = marks[round(100 * point["metrics"]["robust"]["mean"], 9)]
            assert mark[0] == shape
            assert (mark[1] == style.VERMILLION) == point["on_front"][budget]
        front = next(line for line in axes.lines if len(line.get_xdata()) > 1)
        assert len(front.get_xdata()) == sum(point["on_front"][budget] for point in tree["points"])
        assert (np.diff(front.get_ydata()) > 0).all()


@pytest.mark.parametrize(
    ("sizes", "unit"),
    [
        ((2.4e5, 9e5), (1e3, "k")),
        ((17e6, 68e6), (1e6, "M")),
        ((4.8e9, 38e9), (1e9, "G")),
        ((12, 40), (1, "")),
    ],
)
def test_sizes_have_units(sizes, unit):
    assert of.unit(sizes) == unit


@pytest.mark.parametrize("low", [3.0, 7e4, 2e8])
@pytest.mark.parametrize("ratio", [1.0, 1.01, 1.3, 4.0, 300.0])
def test_a_size_axis_has_ticks_inside(low, ratio):
    _, (axes,) = style.new_figure(height=3)
    of.size_axis(axes, [low, low * ratio], "macs")
    inside = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert len(inside) >= 2


def test_bars_of_stages_fill_the_whole(drawn):
    tree = study_tree(4)
    figure = drawn(figures.plot_study_stages, tree["points"])
    for axes in figure.axes[:2]:
        ends = {}
        for bar in axes.patches:
            ends.setdefault(round(bar.get_y(), 6), []).append(bar.get_width())
        assert len(ends) == 4
        np.testing.assert_allclose([sum(widths) for widths in ends.values()], 100)
    order = [text.get_text().rpartition("  #")[0] for text in figure.axes[0].get_yticklabels()]
    assert order == [point["name"] for point in of.ranked(tree["points"], "robust")]


def test_a_heat_map_writes_means_and_hatches_gaps(drawn):
    tree = study_tree(7)  # two columns and four rows, the last cell is empty
    twin = copy.deepcopy(tree["points"][0])
    twin["metrics"]["robust"]["mean"] += 0.02
    figure = drawn(figures.plot_study_heat_map, [*tree["points"], twin], reference=tree["reference"])
    axes = figure.axes[0]
    mean = 100 * tree["points"][0]["metrics"]["robust"]["mean"] + 1
    assert f"{mean:.1f} (2)" in {text.get_text() for text in axes.texts}
    assert len(axes.texts) == 7
    assert sum(patch.get_hatch() is not None for patch in axes.patches) == 1
    with pytest.raises(RunError, match="two factors that vary"):
        drawn(figures.plot_study_heat_map, tree["points"][:1])
    with pytest.raises(RunError, match=r"no measured point has both"):
        drawn(figures.plot_study_heat_map, tree["points"], factors=("depths.2", "heads"))


def test_factors_that_were_computed_do_not_make_a_map():
    rows = [
        {"factors": {"params": 10 * i, "r_d": i / 9, "depth": i, "widths.1": i % 3, "block": "basic"}}
        for i in range(9)
    ]
    assert busiest_factors(rows) == ["widths.1"]
    rows = [
        {"factors": {"params": 10 * i, "depth": i % 3, "width": i % 2, "initialisation": "ab"[i % 2]}}
        for i in range(9)
    ]
    assert set(busiest_factors(rows)) == {"depth", "width", "initialisation"}


def test_the_fit_and_both_optima_stand_where_they_should(drawn):
    tree = study_tree(8)
    axes = drawn(lambda *a, **k: curve(tree, *a, **k)).axes[0]
    x, y, _, _ = np.array(tree["optimum"]["fit"]).T
    fit = next(line for line in axes.lines if line.get_label() == "quadratic fit")
    np.testing.assert_allclose(np.stack(fit.get_data()), [x, 100 * y])
    upright = {
        float(line.get_xdata()[0])
        for line in axes.lines
        if len(set(line.get_xdata())) == 1 < len(line.get_xdata())
    }
    assert upright == {0.5, 0.36}


def test_gains_telescope_and_seeds_have_a_mark_each(drawn):
    tree = study_tree(3)
    figure = drawn(figures.plot_study_lipschitz, tree["points"])
    for axes, point in zip(figure.axes, of.ranked(tree["points"], "robust"), strict=True):
        bars = {round(bar.get_y() + bar.get_height() / 2, 3): bar.get_width() for bar in axes.patches}
        for when, shift in (("initial", -0.2), ("trained", 0.2)):
            gains = [row["log_gain"] for row in point["lip_stages"][when]]
            np.testing.assert_allclose([bars[round(i + shift, 3)] for i in range(4)], gains)
            assert math.isclose(bars[round(4 + shift, 3)], sum(gains))
    strips = drawn(figures.plot_study_seeds, tree["points"])
    for axes in strips.axes:
        assert sum(line.get_linestyle() == "None" for line in axes.lines) == 9


def test_learning_curves_are_means_over_the_seeds(drawn):
    tree = study_tree(3)
    tree["points"][0]["curves"][2]["epochs"] = tree["points"][0]["curves"][2]["epochs"][
        :5
    ]  # a seed that was stopped
    figure = drawn(figures.plot_study_learning, tree["points"])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for point in tree["points"]:
        last = [curve["epochs"][-1]["loss"] for curve in point["curves"] if len(curve["epochs"]) == 12]
        assert math.isclose(lines[point["name"]].get_ydata()[-1], np.mean(last))
        assert list(lines[point["name"]].get_xdata()) == list(range(1, 13))


def test_effects_tell_their_status_by_shape_and_colour(drawn, tmp_path):
    tree = study_tree(6)
    axes = drawn(lambda *a, **k: effects(tree, *a, **k)).axes[0]
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    said = [(line.get_marker(), to_hex(line.get_color()).upper()) for line in marks]
    kinds = {mark: status for status, mark in STATUS.items()}
    assert [kinds[mark] for mark in said[:3]] == ["supported", "undecided", "contradicted"]
    assert (
        len({mark for mark, _ in STATUS.values()})
        == len({colour for _, colour in STATUS.values()})
        == len(STATUS)
    )
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]
    with effects(tree, tmp_path / "x")[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[:3]] == ["rule last_stage", "rule more_params", "rule huang_ratio"]
    assert len(rows) == 3 + len(
        tree["contrasts"]
    )  # r_D is no difference of accuracies; wd_ratio has no effect


def test_a_lipschitz_constant_is_no_percentage():
    point = study_tree(2)["points"][0]
    assert of.estimate(point, "lip_adv")[0] == point["metrics"]["lip_adv"]["mean"]
    assert of.estimate(point, "clean")[0] == 100 * point["metrics"]["clean"]["mean"]
    assert math.isnan(of.estimate(point, "never measured")[0])


def test_a_network_at_chance_has_no_rank_and_is_named_in_every_caption(drawn):
    tree = study_tree(4)
    best = of.ranked(tree["points"], "robust")[0]
    best["at_chance"] = "clean accuracy 9.4 %"
    assert of.ranked(tree["points"], "robust")[-1] is best
    assert sorted(of.numbers(tree["points"], "robust").values()) == ["#1", "#2", "#3", "at chance"]
    for name in FIGURES.built_in:
        figure = FIGURES.make(name)
        if figure.of == "study" and figure.has_data(tree):
            assert f"nothing is concluded from them: {best['name']}." in figure.caption(tree, "")
    tree["inherited"]["undecided"] = "one is not above chance"
    title = drawn(figures.plot_study_inherited, tree["inherited"]).axes[0].get_title(loc="left")
    assert title.endswith("undecided: not above chance")
