import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulated_studies import answers, study
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from robust_nas.errors import StudyError
from robust_nas.statistics import (
    Measurements,
    contrast,
    contrasts,
    equivalent,
    holm,
    interior_optimum,
    kendall,
    log2_slope,
    pareto,
    pareto_membership,
    smallest_effect,
    summary,
    trend,
)
from robust_nas.statistics.proportions import wilson
from robust_nas.statistics.trends import _dense_ranks, _taus

PUBLISHED = Path(__file__).parents[1] / "studies" / "published_tables.csv"


def rows(**wanted):
    with PUBLISHED.open() as file:
        return [
            row for row in csv.DictReader(file) if all(row[key] in value for key, value in wanted.items())
        ]


def numbers(found, key):
    return np.array([float(row[key]) for row in found])


BASIC = {"dataset": ("cifar10",), "rule": ("uniform", "depth", "width", "robustscaling")}


@pytest.mark.parametrize(
    ("rule", "key", "slope", "half", "at_10g"),
    [
        ("uniform", "pgd20", 0.313, 0.185, 56.12),
        ("uniform", "cw40", 0.493, 0.220, 53.62),
        ("depth", "pgd20", 0.652, 0.221, 56.57),
        ("depth", "cw40", 0.890, 0.392, 53.92),
        ("width", "pgd20", 0.594, 0.430, 57.26),
        ("width", "cw40", 0.818, 0.327, 54.42),
        ("robustscaling", "pgd20", 0.420, 0.209, 57.98),
        ("robustscaling", "cw40", 0.610, 0.178, 55.43),
        ("robustresnet", "pgd20", 0.513, 0.544, 59.43),
        ("robustresnet", "cw40", 0.732, 0.257, 56.53),
    ],
)
def test_published_slopes_per_doubling(rule, key, slope, half, at_10g):
    found = rows(dataset=("cifar10",), rule=(rule,))
    assert len(found) == 4
    line = log2_slope(numbers(found, "macs_printed_g"), numbers(found, key))
    assert line.slope == pytest.approx(slope, abs=5.1e-4)
    assert (line.interval[1] - line.interval[0]) / 2 == pytest.approx(half, abs=1.1e-3)
    assert line.at(10) == pytest.approx(at_10g, abs=5.1e-3)


def test_published_rank_correlations():
    found = rows(**BASIC)
    assert len(found) == 16
    tau, _, p = kendall(numbers(found, "params_computed_m"), numbers(found, "pgd20"))
    assert (round(tau, 3), round(p, 2)) == (0.217, 0.27)
    tau, interval, p = kendall(numbers(found, "macs_printed_g"), numbers(found, "pgd20"))
    assert (round(tau, 3), round(p, 3)) == (0.471, 0.012)
    assert interval[0] < tau < interval[1]


@pytest.mark.parametrize("cost", ["params_computed_m", "macs_computed_g"])
@pytest.mark.parametrize("key", ["pgd20", "cw40"])
def test_published_pareto_set_is_robustscaling(cost, key):
    found = rows(dataset=("cifar10",), rule=(*BASIC["rule"], "huang"))
    front = pareto(numbers(found, cost), numbers(found, key))
    assert [row["model"] for row, kept in zip(found, front, strict=True) if kept] == [
        f"WRN-A{i}" for i in range(1, 5)
    ]


def test_pareto_is_the_brute_force_set_with_ties():
    rng = np.random.default_rng(0)
    cost, value = rng.integers(6, size=30), rng.integers(6, size=(4, 30))
    for each, front in zip(value, pareto(cost, value), strict=True):
        beaten = (cost[:, None] <= cost) & (each[:, None] >= each)
        strictly = (cost[:, None] < cost) | (each[:, None] > each)
        np.testing.assert_array_equal(front, ~(beaten & strictly).any(axis=0))


def test_pareto_membership_is_sure_where_nothing_overlaps():
    points = study(
        [0.3, 0.6, 0.4, 0.62], np.random.default_rng(0), {"params": [1, 2, 3, 4]}, sd=0.001, images=5000
    )
    chance = pareto_membership(points, "params", "robust", 200)
    assert chance[0] == chance[1] == 1
    assert chance[2] == 0
    assert chance[3] > 0.9


def test_summary_says_only_what_the_seeds_allow():
    rng = np.random.default_rng(0)
    one, two, three = (study([0.5], rng, seeds=seeds)[0] for seeds in (1, 2, 3))
    found = summary(one, "robust")
    assert (found.sd, found.seed_interval, found.interval) == (None, None, None)
    assert found.image_interval == pytest.approx(wilson(int(one.outcomes["robust"].sum()), 1000), abs=1e-4)
    found = summary(two, "robust")
    assert found.sd is not None
    assert found.seed_interval is found.interval is None
    found = summary(three, "robust")
    expected = stats.t.interval(0.95, 2, found.mean, stats.sem(found.values))
    assert found.seed_interval == pytest.approx(expected)
    assert (
        found.interval[0]
        <= found.image_interval[0]
        < found.mean
        < found.image_interval[1]
        <= found.interval[1]
    )
    assert summary(three, "robust") == found
    measure = Measurements(name="m", seeds=(0, 1, 2), measures={"lip_adv": (1.0, 2.0, 4.0)})
    assert summary(measure, "lip_adv").image_interval is None
    assert summary(measure, "lip_adv").seed_interval is not None
    with pytest.raises(StudyError, match="'robust' was not measured; measured: lip_adv"):
        summary(measure, "robust")


def test_measures_are_compared_by_the_t_test():
    a = Measurements(name="a", seeds=(0, 1, 2), measures={"lip": (1.0, 2.0, 4.0)})
    b = Measurements(name="b", seeds=(0, 1, 2), measures={"lip": (3.0, 3.5, 6.0)})
    found, expected = contrast(a, b, "lip"), stats.ttest_ind(a.measures["lip"], b.measures["lip"])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_single_networks_are_compared_by_mcnemar():
    points = study([0.5, 0.56], np.random.default_rng(1), seeds=1)
    a, b = (point.outcomes["robust"][0] for point in points)
    found = contrast(*points, "robust")
    assert found.p == mcnemar([[0, (a & ~b).sum()], [(~a & b).sum(), 0]], exact=True).pvalue
    assert not found.includes_seeds
    assert equivalent(found, 0.5) is None


def test_pairing_by_image_shortens_the_interval():
    outcomes = answers([0.5, 0.5], np.random.default_rng(2), images=2000, sd=0)
    shuffled = outcomes[1][:, np.random.default_rng(3).permutation(2000)]
    a, b, c = (
        Measurements(name=name, seeds=(0, 1, 2), outcomes={"robust": each})
        for name, each in (("a", outcomes[0]), ("b", outcomes[1]), ("c", shuffled))
    )
    assert contrast(a, b, "robust").effect == pytest.approx(contrast(a, c, "robust").effect)
    assert contrast(a, b, "robust").result.se < 0.7 * contrast(a, c, "robust").result.se


def test_holm_is_that_of_statsmodels():
    points = study(0.5 + 0.02 * np.arange(5), np.random.default_rng(4))
    found = holm(contrasts([(points[0], point) for point in points[1:]], "robust", points))
    expected = multipletests([each.p for each in found], method="holm")[1]
    np.testing.assert_allclose([each.p_holm for each in found], expected)
    assert holm([]) == []


def test_equivalence_is_earned_by_a_narrow_interval():
    same = study([0.5, 0.5], np.random.default_rng(5), sd=0.001, images=10_000)
    found = contrast(*same, "robust")
    assert equivalent(found, 0.05)
    assert not equivalent(found, abs(found.effect) + 1e-4)
    with pytest.raises(StudyError, match="margin"):
        equivalent(found, 0)


def test_trend_finds_the_slope_and_refuses_what_is_no_factor():
    x = [1, 2, 4, 8, 16]
    points = study(
        0.4 + 0.03 * np.arange(5), np.random.default_rng(6), {"params": x, "same": [1] * 5}, images=4000
    )
    found = trend(points, "params", "robust")
    assert found.slope.interval[0] < 0.03 < found.slope.interval[1]
    assert found.tau == pytest.approx(1)
    with pytest.raises(StudyError, match="varies"):
        trend(points, "same", "robust")
    with pytest.raises(StudyError, match="factor 'macs' is None"):
        trend(points, "macs", "robust")


def test_optimum_is_the_parabolas_and_ends_decide_whether_it_is_inside():
    x = np.linspace(0.3, 0.9, 7)
    curve = 0.5 - 0.8 * (x - 0.65) ** 2
    found = interior_optimum(
        "r_d", study(curve, np.random.default_rng(7), {"r_d": x}, images=5000), "robust", "macs"
    )
    assert found.interior
    assert found.location == pytest.approx(
        0.65, abs=0.02
    )  # coverage of the interval: test_study_simulations.py
    assert all(low <= y <= high for _, y, low, high in found.fit)
    rising = study(0.3 + 0.2 * x, np.random.default_rng(8), {"r_d": x}, images=5000)
    assert not interior_optimum("r_d", rising, "robust", "macs").interior
    with pytest.raises(StudyError, match="4 or more"):
        interior_optimum("r_d", rising[:3], "robust", "macs")


@pytest.mark.parametrize(
    ("seeds", "effects"), [(3, (0.307, 0.461, 0.614, 0.921)), (5, (0.20, 0.30, 0.40, 0.61))]
)
def test_smallest_effects(seeds, effects):
    found = [smallest_effect(sd, seeds) for sd in (0.10, 0.15, 0.20, 0.30)]
    assert found == pytest.approx(effects, abs=5e-3)
    assert found[0] == pytest.approx(0.1 * TTestIndPower().solve_power(None, seeds, 0.05, 0.8), rel=1e-6)


def test_images_and_pooling_move_the_smallest_effect():
    assert (
        smallest_effect(0.01, 3, images=1000)
        > smallest_effect(0.01, 3, images=10_000)
        > smallest_effect(0.01, 3)
    )
    assert smallest_effect(0.01, 3, configurations=8) < smallest_effect(0.01, 3)
    with pytest.raises(StudyError, match="1 seeds"):
        smallest_effect(0.01, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": ()},
        {"seeds": (0, 0)},
        {"seeds": (0,), "outcomes": {"robust": np.zeros((2, 3), dtype=bool)}},
        {"seeds": (0,), "outcomes": {"robust": np.zeros((1, 3))}},
        {
            "seeds": (0,),
            "outcomes": {"robust": np.zeros((1, 3), dtype=bool), "clean": np.zeros((1, 4), dtype=bool)},
        },
        {"seeds": (0, 1), "measures": {"lip": (1.0,)}},
        {"seeds": (0,), "measures": {"lip": (float("nan"),)}},
    ],
)
def test_a_point_whose_parts_disagree_is_refused(wrong):
    with pytest.raises(StudyError, match="needed"):
        Measurements(name="p", **wrong)


def test_different_images_are_refused():
    a, b = study([0.5], np.random.default_rng(0))[0], study([0.5], np.random.default_rng(0), images=500)[0]
    with pytest.raises(StudyError, match="same images"):
        contrast(a, Measurements(name="b", seeds=b.seeds, outcomes=b.outcomes), "robust")


def test_tau_of_equal_and_of_opposite_orders_and_of_scores_that_do_not_differ():
    scores = [0.1, 0.5, 0.2, 0.9, 0.4]
    assert kendall(scores, [10 * score for score in scores])[:2] == (pytest.approx(1), pytest.approx((1, 1)))
    assert kendall(scores, [-score for score in scores])[0] == pytest.approx(-1)
    tau, (low, high), _ = kendall(scores, [0.3, 0.1, 0.2, 0.9, 0.8])
    assert tau == pytest.approx(0.2)  # 6 of the 10 pairs agree, 4 do not
    assert -1 <= low < tau < high <= 1
    with pytest.raises(StudyError, match="needed: values that vary"):
        kendall(scores, [0.5] * 5)


@pytest.mark.parametrize("images", [1, 5, 60])
def test_answers_that_never_differ_prove_nothing_on_few_images(images):
    right, wrong = (np.full((3, images), value) for value in (True, False))
    points = [
        Measurements(name=name, seeds=(0, 1, 2), outcomes={"robust": answers})
        for name, answers in (("a", wrong), ("b", wrong), ("c", right))
    ]
    same, other = contrasts([(points[0], points[1]), (points[2], points[0])], "robust")
    assert same.effect == 0
    assert not equivalent(same, 0.01)
    assert same.interval[0] < 0 < same.interval[1]
    assert other.p > 0
    assert other.interval[0] < 1


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_the_rank_correlation_of_every_draw_is_scipy_s(n, values, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, values, (4, n)) for _ in range(2))
    for found, one, other in zip(_taus(x, y), x, y, strict=True):
        expected = stats.kendalltau(one, other).statistic
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_the_ranks_of_equal_values_are_equal():
    assert _dense_ranks(np.array([[0.5, -1.0, 0.5, 2.0], [1.0, 1.0, 1.0, 1.0]])).tolist() == [
        [1, 0, 1, 2],
        [0, 0, 0, 0],
    ]
