"""The rules of width and depth against the values that the literature's networks have."""

import pytest

from robust_nas.spaces import load_architecture
from robust_nas.spaces.rules import (
    depth_share,
    huang_distance,
    robustscaling_objective,
    rule_checks,
    wd_ratio,
    wd_ratio_of,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wrn-28-10", 60.0),
        ("wrn-34-10", 48.0),
        ("wrn-34-12", 57.6),
        ("wrn-46-14", 48.0),
        ("wrn-70-16", 34.9),
        ("wrn-82-8", 14.8),
        ("wrn-94-16", 25.6),
        ("wrn-34-r", 96.0),
        ("wrn-a1", 10.86),
        ("wrn-a2", 11.76),
        ("wrn-a3", 10.91),
        ("wrn-a4", 10.96),
    ],
)
def test_width_depth_ratios(name: str, value: float) -> None:
    assert wd_ratio(load_architecture(name)) == pytest.approx(value, abs=0.05 if value > 14 else 5e-3)


def test_the_width_depth_ratio_of_resnet_50() -> None:
    assert wd_ratio_of((3, 4, 6, 3), (64, 128, 256, 512)) == 32.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wrn-a1", 0.700),
        ("wrn-a2", 0.677),
        ("wrn-a3", 0.696),
        ("wrn-a4", 0.694),
        ("wrn-28-10", 0.286),
        ("wrn-34-12", 0.294),
        ("wrn-70-16", 0.407),
        ("wrn-34-r", 0.238),
    ],
)
def test_depth_shares(name: str, value: float) -> None:
    assert depth_share(load_architecture(name)) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "value"), [("wrn-a1", 0.061), ("wrn-a2", 0.078), ("wrn-a3", 0.064), ("wrn-a4", 0.090)]
)
def test_objectives_of_the_compound_rule(name: str, value: float) -> None:
    assert robustscaling_objective(load_architecture(name)) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "holding"),
    [
        ("wrn-28-10", set()),
        ("wrn-34-r", {"huang_ratio"}),
        ("wrn-a1", {"robustscaling", "wd_ratio"}),
        ("wrn-a4", {"robustscaling", "wd_ratio"}),
        ("rrn-a2", {"robustscaling", "wd_ratio"}),
    ],
)
def test_which_rules_hold(name: str, holding: set[str]) -> None:
    checks = rule_checks(load_architecture(name))
    assert {check.rule for check in checks} == {"huang_ratio", "robustscaling", "wd_ratio"}
    assert {check.rule for check in checks if check.holds} == holding


def test_no_rule_speaks_of_cells() -> None:
    arnas = load_architecture("arnas")
    assert rule_checks(arnas) == []
    assert depth_share(arnas) is wd_ratio(arnas) is huang_distance(arnas) is None
