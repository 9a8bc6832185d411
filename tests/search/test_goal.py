"""Objectives and constraints: dominance, fronts, order, rules and hypervolume against plain definitions."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.errors import ConfigError
from robust_nas.search import RandomSearch
from robust_nas.search.sampled.goal import Goal, Judgement

TWO = Goal({"robust": "max", "macs": "min"}, {"latency": (0.0, 5.0)})
POINTS = st.lists(
    st.tuples(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from([0.0, 0.0, 1.0, math.inf])),
    min_size=1,
    max_size=8,
)


def judged(points):
    return [Judgement(tuple(map(float, gains)), violation) for gains, violation in points]


def test_a_record_is_judged_by_its_columns():
    def judge(**changes):
        return TWO.judge({"robust": 0.5, "macs": 10, "latency": 4.0, **changes})

    assert judge() == ((0.5, -10), 0)
    assert judge(latency=7.5) == ((0.5, -10), 0.5)
    assert judge(latency=-2.5).violation == 0.5
    assert judge(latency=None).violation == judge(latency=math.nan).violation == math.inf
    assert judge(robust=None).gains is judge(robust=math.nan).gains is judge(macs=math.inf).gains is None


@given(POINTS)
def test_front_and_order_follow_the_definition_of_dominance(points):
    all_points = judged(points)

    def dominates(a, b):
        if a.violation != b.violation:
            return a.violation < b.violation
        return a.gains != b.gains and all(x >= y for x, y in zip(a.gains, b.gains, strict=True))

    assert all(TWO.is_better(a, b) == dominates(a, b) for a, b in product(all_points, repeat=2))
    front = [one for one in all_points if not any(dominates(other, one) for other in all_points)]
    assert TWO.front(all_points) == front
    order = TWO.ordered(all_points)
    assert sorted(order) == sorted(all_points)
    assert set(order[: len(front)]) == set(front)
    assert not any(dominates(order[j], order[i]) for i in range(len(order)) for j in range(i, len(order)))


def test_within_a_front_the_ends_and_the_lonely_come_first():
    a, b, c, d = judged([((0, 10), 0.0), ((1, 9), 0.0), ((2, 8), 0.0), ((10, 0), 0.0)])
    assert TWO.ordered([b, c, a, d]) == [a, d, c, b]


def test_one_objective_is_ordered_by_violation_then_gain_and_equals_keep_their_order():
    goal = Goal({"score": "max"}, {})
    points = [Judgement((1.0,), 0.0), Judgement((3.0,), 1.0), Judgement(None, 0.0), Judgement((2.0,), 0.0)]
    assert goal.ordered(points) == [points[3], points[0], points[1]]
    assert goal.taken(points) == points[3]
    assert goal.taken(points[1:3]) is None
    assert goal.is_better(points[0], points[2])
    assert not goal.is_better(points[2], points[0])


def test_the_rules_take_the_best_of_the_first_objective_or_the_knee():
    front = judged([((0, 4), 0.0), ((3, 3), 0.0), ((4, 0), 0.0), ((1, 1), 0.0), ((9, 9), 1.0)])
    assert TWO.taken(front).gains == (4, 0)
    knee = Goal(TWO.objectives, TWO.constraints, "knee")
    assert knee.taken(front).gains == (3, 3)
    scaled = judged([((0, 400), 0.0), ((3, 300), 0.0), ((4, 0), 0.0)])
    assert knee.taken(scaled).gains == (3, 300)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_hypervolume_is_that_of_a_grid_of_unit_boxes(objectives):
    goal = Goal(dict.fromkeys("abc"[:objectives], "max"), {})
    rng = np.random.default_rng(objectives)
    points = rng.integers(0, 6, (7, objectives))
    boxes = [corner for corner in product(range(6), repeat=objectives) if (points > corner).all(1).any()]
    reference = dict.fromkeys(goal.objectives, 0.0)
    assert goal.hypervolume(judged([(tuple(p), 0.0) for p in points]), reference) == (reference, len(boxes))


def test_the_reference_is_the_worst_of_the_candidates_in_the_units_of_their_columns():
    points = [TWO.judge({"robust": r, "macs": m, "latency": 1}) for r, m in ((0.2, 10), (0.4, 30), (0.3, 20))]
    reference, volume = TWO.hypervolume(points, {})
    assert reference == {"robust": 0.2, "macs": 30}
    assert volume == pytest.approx(0.1 * 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectives": {"latency": "max"}}, r"got 'latency'; columns .*: score, macs, params, clean, robust"),
        ({"objectives": {"score": "up"}}, r"objectives\.score: .*allowed: max, min"),
        ({"objectives": {}}, "objectives"),
        ({"constraints": {"latency": "0:5"}}, "constraints: got 'latency'; columns"),
        ({"constraints": {"macs": "0:5"}}, r"constraints\.macs: it is a key of its own"),
        ({"constraints": {"clean": "5:0"}}, r"constraints\.clean: .*LOW must be at most HIGH"),
        ({"take": "knee"}, "take: got 'knee'; it needs two objectives"),
        ({"reference": {"macs": 1}}, "reference: got macs; a value for each of score"),
        ({"budget": "2 weeks"}, "budget: .*a duration is needed"),
        ({"budget": 0}, "budget"),
        ({"samples": 3}, "it is now evaluations"),
    ],
)  # fmt: skip
def test_what_is_no_goal_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        RandomSearch(**values)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("2m", 120), ("1d", 86400), ("7", 7)]
)
def test_a_budget_is_a_duration(text, seconds):
    assert RandomSearch(budget=text).budget == seconds
