"""Error rates and power over 200 studies whose truth is known (the design is in `simulated_studies.py`)."""

import math
from collections import Counter

import numpy as np
import pytest
from simulated_studies import study

from robust_nas.errors import StudyError, UnknownMethodError
from robust_nas.statistics import Measurements, contrast, interior_optimum, summary
from robust_nas.studies.rules import RULES, Evidence, verdicts

STUDIES = 200
NOMINAL = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)
SD = 0.01  # of the seeds' accuracies
FLAT = np.full(6, 0.5)
REDUCED = np.array([0, 1, 1, 1, 1, 0])
LAST_STAGE = {
    "depths.0": [2] * 6,
    "depths.1": [2, 2, 2, 1, 1, 3],
    "widths.0": [4] * 6,
    "widths.1": [4, 2, 1, 4, 2, 4],
    "params": [10, 8, 7, 6, 5, 12],
    "macs": [1] * 6,
}
R_D = np.array([0.5, 0.58, 0.66, 0.74, 0.82, 0.9])
CURVE = {"macs": [1] * 6, "params": [1, 2, 3, 4, 5, 6], "r_d": R_D, "last_stage_macs_share": R_D}
ARMS = ["huang", "huang", "uniform-iso-params", "uniform-iso-params", "uniform-iso-macs", "uniform-iso-macs"]
BUDGETS = {"params": [10, 20, 10, 20, 4, 8], "macs": [10, 20, 5, 10, 10, 20]}


def rates(rule, accuracy, factors, reference=None, arms=None, images=1000, **design):
    """How often each status came out."""
    rng, found = np.random.default_rng(11), Counter()
    for number in range(STUDIES):
        points = study(accuracy, rng, factors, arms, images=images, sd=SD, **design)
        evidence = Evidence(points=points, reference=reference, draws=200, seed=number)
        for verdict in (answers := verdicts([RULES.make(rule)], evidence)):
            found[verdict.status] += 1 / len(answers) / STUDIES
    return found


@pytest.mark.parametrize(
    ("rule", "factors", "reference", "arms"),
    [
        ("last_stage", LAST_STAGE, "p0", None),
        ("huang_ratio", BUDGETS, None, ARMS),
        ("more_params", {"params": [1, 2, 4, 8, 16, 32]}, None, None),
        ("iso_optimum", CURVE, "p0", None),
        ("wd_ratio", {"macs": [1] * 6, "wd_ratio": [8, 10, 12, 20, 30, 4]}, None, None),
    ],
)
def test_no_effect_seldom_decides(rule, factors, reference, arms):
    found = rates(rule, FLAT, factors, reference, arms)
    assert found["supported"] + found["contradicted"] <= NOMINAL


@pytest.mark.parametrize(
    ("sign", "true", "false"), [(1, "supported", "contradicted"), (-1, "contradicted", "supported")]
)
def test_three_sd_of_the_seeds_are_found(sign, true, false):
    found = rates("last_stage", FLAT + sign * 3 * SD * REDUCED, LAST_STAGE, "p0", images=10_000)
    assert found[true] >= 0.9
    assert found[false] <= NOMINAL


@pytest.mark.parametrize(
    "curve",
    [0 * R_D, 3 * SD * (R_D - 0.5) / 0.4, 6 * SD * (1 - np.exp(-(R_D - 0.5) / 0.07))],
    ids=["flat", "rising", "saturating"],
)
def test_no_optimum_is_seldom_called_one(curve):
    assert rates("robustscaling", 0.4 + curve, CURVE)["undecided"] >= 1 - NOMINAL


def test_an_interior_optimum_is_found_where_it_is():
    found = rates("robustscaling", 0.5 - 6 * SD * ((R_D - 0.7) / 0.2) ** 2, CURVE)
    assert found["supported"] >= 0.85
    assert found["contradicted"] <= NOMINAL


def test_an_interior_optimum_of_three_sd_is_found_with_five_seeds():
    found = rates("iso_optimum", 0.5 - 3 * SD * ((R_D - 0.7) / 0.2) ** 2, CURVE, "p0", images=10_000, seeds=5)
    assert found["supported"] >= 0.9
    assert found["contradicted"] <= NOMINAL


def test_intervals_cover_the_truth():
    rng, held = np.random.default_rng(3), Counter()
    for _ in range(STUDIES):
        points = study(0.5 - 0.8 * (R_D - 0.65) ** 2, rng, {"r_d": R_D}, sd=SD)
        both = summary(points[0], "robust", draws=500, rng=rng).interval
        held["summary"] += both[0] <= 0.5 - 0.8 * 0.15**2 <= both[1]
        between = contrast(points[0], points[2], "robust", points).interval
        held["contrast"] += between[0] <= -0.8 * (0.15**2 - 0.01**2) <= between[1]
        place = interior_optimum("r_d", points, "robust", "macs", draws=200, rng=rng).interval
        held["optimum"] += place[0] <= 0.65 <= place[1]
    assert min(held.values()) / STUDIES >= 1 - NOMINAL, held


def test_depth_and_initialisation_interact_as_made():
    rng = np.random.default_rng(0)

    def made(slopes):
        return [
            Measurements(
                name=f"{init}-{depth}",
                seeds=(0, 1, 2),
                factors={"initialisation": init, "depth": depth},
                measures={
                    "average_sensitivity": tuple(2 ** (slope * np.log2(depth) + 0.1 * rng.standard_normal(3)))
                },
            )
            for init, slope in slopes.items()
            for depth in (2, 4, 8)
        ]

    apart = verdicts(
        [RULES.make("zhu_init")], Evidence(points=made({"lecun": -0.5, "ntk": 0.5, "he-fan-in": 0.5}))
    )[0]
    assert apart.status == "supported"
    assert apart.interval[0] < 1 < apart.interval[1]
    with pytest.raises(StudyError, match="lecun"):
        verdicts([RULES.make("zhu_init")], Evidence(points=made({"ntk": 0.5})))


def test_one_seed_decides_nothing():
    points = study(FLAT + 0.2 * REDUCED, np.random.default_rng(0), LAST_STAGE | CURVE, seeds=1)
    names = ("last_stage", "more_params", "iso_optimum", "robustscaling")
    rules = [RULES.make(name) for name in names]
    for verdict in verdicts(rules, Evidence(points=points, reference="p0")):
        assert verdict.status == "undecided"
        assert "two seeds" in verdict.reason


def test_arms_of_different_budgets_are_refused():
    points = study(FLAT, np.random.default_rng(0), {"params": [10, 20, 12, 24, 1, 1], "macs": [1] * 6}, ARMS)
    found = verdicts([RULES.make("huang_ratio")], Evidence(points=points))
    assert found[0].status == "undecided"
    assert "within 10 % is needed" in found[0].reason


def test_what_cannot_apply_names_what_is_missing():
    points = study(FLAT, np.random.default_rng(0), {"params": [1, 2, 3, 4, 5, 6]})
    for rule in sorted({*RULES.names()} - {"more_params"}):
        with pytest.raises(StudyError, match=f"rule '{rule}'"):
            verdicts([RULES.make(rule)], Evidence(points=points, reference="p0"))
    with pytest.raises(UnknownMethodError, match="allowed: last_stage"):
        RULES.get("first_stage")
