"""Findings of an evaluation in L1, where FGSM, PGD and Square are not defined."""

import pytest
import torch
from evaluation_bad_networks import Negated, Quantised
from small_cascade import by_name, evaluated
from torch import nn

EPS = 2.0  # pixel values in all, of 64
ATTACK = {"name": "apgd", "steps": 20}
GRADIENT = "gradients predict the margin"
CURVE = "accuracy falls with eps"


@pytest.fixture(scope="module")
def honest(robust, dataset):
    return evaluated(robust, dataset, ATTACK, norm="l1", eps=EPS, images=24)


def test_an_honest_model_passes_and_what_is_not_defined_in_l1_is_named(honest):
    found = by_name(honest)
    for title in (
        GRADIENT,
        CURVE,
        "a chosen class without a bound",
        "active test",
        "perturbation re-measured",
    ):
        assert found[title].status == "PASS", found[title]
    assert "iterative at least as strong as FGSM" not in found
    assert "Square is not defined in l1" in found["white box at least as strong as Square"].text


def test_the_curve_is_of_apgd_in_l1_and_ends_at_the_whole_box(honest):
    points = honest.eps_curve
    assert [point["eps"] for point in points] == [0.0, EPS / 2, EPS, 2 * EPS, 32.0, 64.0]
    assert all("apgd" in point["attack"] for point in points[1:])
    assert points[-1]["accuracy"] == 0


@pytest.mark.parametrize("make", [Negated, Quantised])
def test_a_masked_gradient_is_caught_in_l1(robust, dataset, make):
    found = by_name(evaluated(make(robust), dataset, ATTACK, norm="l1", eps=EPS, images=24))
    assert found[GRADIENT].status == "FAIL"


class Dropping(nn.Module):
    """Dropout on the image that stays on."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(nn.functional.dropout(x, 0.1, training=True))


def test_a_frozen_draw_of_a_random_model_falls_in_l1(robust, dataset):
    torch.manual_seed(0)
    found = by_name(
        evaluated(Dropping(robust), dataset, ATTACK, norm="l1", eps=EPS, images=16, deployed={"samples": 4})
    )
    assert found["succeeds on one frozen draw"].status == "PASS"
