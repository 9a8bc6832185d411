"""Rules of width and depth against the published networks, and brute force."""

from itertools import product

import pytest

from robust_nas.spaces import (
    ResidualArchitecture,
    count,
    load_architecture,
)
from robust_nas.spaces.rules import depth_share, robustscaling_objective
from robust_nas.studies.design.ratio import RatioDesign

CIFAR = ((3, 32, 32), 10)
DIGITS = ((1, 8, 8), 10)
WRN_28_10 = load_architecture("wrn-28-10")
WRN_34_10 = load_architecture("wrn-34-10")


@pytest.mark.parametrize(
    ("target", "expected"), [(4.27e6, 5), (17.05e6, 10), (38.33e6, 15), (68.12e6, 20), (106.41e6, 25)]
)
def test_the_huang_rule_at_the_budgets_of_its_table(target: float, expected: int) -> None:
    [choice] = RatioDesign(rule="huang", budget="params", targets=(target,)).configurations(WRN_34_10, *CIFAR)
    k = expected
    assert choice.architecture.widths == (16 * k, 32 * k, round(64 * 0.4 * k))  # type: ignore[union-attr]
    assert (choice.architecture.name == "wrn-34-r") == (k == 20)


@pytest.mark.parametrize("budget", ["params", "macs"])
def test_the_uniform_rule_returns_the_reference_at_its_own_budget(budget: str) -> None:
    for free in ("width", "depth"):
        [choice] = RatioDesign(rule="uniform", budget=budget, free=free).configurations(WRN_28_10, *CIFAR)
        assert choice.architecture.name == "wrn-28-10"


def test_the_compound_rule_finds_the_published_network_at_5_g() -> None:
    [choice] = RatioDesign(rule="robustscaling", budget="macs", targets=(5e9,), tolerance=0.1).configurations(
        WRN_28_10, *CIFAR
    )
    assert choice.architecture.name == "wrn-a1"


def test_the_compound_rule_at_larger_budgets_is_as_near_as_the_published_networks() -> None:
    targets = (10e9, 20e9, 40e9)
    choices = RatioDesign(rule="robustscaling", budget="macs", targets=targets, tolerance=0.1).configurations(
        WRN_28_10, *CIFAR
    )
    for choice, target, published in zip(choices, targets, ("wrn-a2", "wrn-a3", "wrn-a4"), strict=True):
        objective = robustscaling_objective(choice.architecture)
        assert objective is not None
        assert objective <= min(0.09, robustscaling_objective(load_architecture(published)) or 0)
        assert count(choice.architecture).macs == pytest.approx(target, rel=0.1)


def test_the_compound_rule_is_the_best_of_all_small_configurations() -> None:
    base = ResidualArchitecture(name="x", depths=(2, 2, 1), widths=(16, 40, 32))
    target, best = count(base, *DIGITS).macs * 1.3, []
    for depths in product(range(1, 5), repeat=3):
        for steps in product(range(1, 6), repeat=3):
            widths = tuple(8 * 2**stage * step for stage, step in enumerate(steps))
            network = ResidualArchitecture(name="x", depths=depths, widths=widths)
            off = abs(count(network, *DIGITS).macs / target - 1)
            if off <= 0.1:
                best.append((round(robustscaling_objective(network) or 0, 12), off, depths, widths))
    rule = RatioDesign(rule="robustscaling", budget="macs", targets=(target,), tolerance=0.1, unit=8)
    [choice] = rule.configurations(base, *DIGITS)
    found = choice.architecture
    assert (found.depths, found.widths) == min(best)[2:]  # type: ignore[union-attr]


def test_r_d_moves_with_its_target() -> None:
    rule = RatioDesign(
        rule="robustscaling", budget="macs", targets=(5e9,), tolerance=0.1, r_d=(0.4, 0.55, 0.7, 0.85)
    )
    for choice, r_d in zip(rule.configurations(WRN_28_10, *CIFAR), rule.r_d, strict=True):
        assert depth_share(choice.architecture) == pytest.approx(r_d, abs=0.05)
