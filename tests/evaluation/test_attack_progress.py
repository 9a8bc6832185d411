"""Progress moves inside an attack on one batch, and an attack reports what it counts."""

import pytest
import torch
from torch import nn

from robust_nas.attacks import PGD, Square
from robust_nas.attacks.attacked_model import forwards_reported
from robust_nas.evaluation import evaluate


@pytest.fixture
def linear():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    x = torch.rand(12, 1, 4, 4)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("attack", [PGD(eps=0.01, steps=5), Square(eps=0.01, queries=10)])
def test_the_forward_passes_that_are_reported_are_those_that_the_attack_counts(linear, attack):
    reported = []
    with forwards_reported(reported.append):
        found = attack.run(*linear)
    assert sum(reported) == found.forwards
    attack.run(*linear)
    assert sum(reported) == found.forwards  # outside, nothing


def test_the_fraction_of_an_attack_grows_within_its_only_batch(linear):
    model, x, y = linear
    seen = []
    evaluate(
        model,
        (x, y),
        threat_model={"norm": "linf", "eps": 1e-4},
        suite=[PGD(eps=1e-4, steps=9)],
        batch_size=12,
        findings="none",
        progress=lambda name, fraction: seen.append((name, fraction)),
    )
    fractions = [fraction for name, fraction in seen if name == "pgd-9"]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(set(fractions)) >= 9
