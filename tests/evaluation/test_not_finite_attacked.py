"""Logits that are not finite within reach of an attack alone: the row, the finding and the verdict see them."""

import pytest
import torch
from evaluation_networks import EPS, Images, generator
from torch import nn

import robust_nas
from robust_nas import ThreatModel
from robust_nas.attacks import APGD, PGD, AutoAttack, Predictor, Square
from robust_nas.evaluation.accuracy import judge

COUNT = 24


class Fragile(nn.Module):
    """Two classes by the mean pixel, far apart; a logit that is not finite where an image has moved."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        lead = 20 * (x.mean((1, 2, 3)) - 0.5)
        levels = 255 * x.detach()
        off = ((levels - levels.round()).abs() > 0.02).flatten(1).any(1)
        lead = lead.masked_fill(off, self.value)
        return torch.stack([torch.zeros_like(lead), lead], 1)


def images():
    pixels = 0.3 * torch.rand(COUNT, 1, 6, 6, generator=generator(1))
    labels = torch.arange(COUNT) % 2
    return Images((255 * (pixels + 0.7 * labels.view(-1, 1, 1, 1))).round() / 255, labels)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=EPS, steps=2),
        APGD(eps=EPS, steps=3),
        Square(eps=EPS, queries=3),
        AutoAttack(eps=EPS, attacks=("apgd-ce",)),
    ],
    ids=lambda attack: attack.name,
)
def test_a_logit_that_is_not_finite_within_reach_breaks_every_image(attack, value):
    found = robust_nas.evaluate(Fragile(value), images(), ThreatModel(eps=EPS), [attack], findings="budget")
    (row,) = found.rows
    assert (found.clean.correct, row.attacked, row.broken) == (COUNT, COUNT, COUNT)
    assert found.robust.correct == 0
    finding = next(each for each in found.findings if each.name == "finite logits")
    assert (finding.status, finding.value) == ("FAIL", COUNT)
    assert found.verdict.status == "UNRELIABLE"
    assert not any(each.status == "FAIL" for each in found.findings if each.name == "silent success")


class SometimesNaN(nn.Module):
    """Finite in every other pass."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        lead = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([torch.zeros_like(lead), lead * (1 if self.passes % 2 else torch.nan)], 1)


def test_every_draw_of_a_random_model_is_looked_at():
    data = images()
    judged = judge(Predictor(SometimesNaN(), samples=1), data.pixels, data.labels, draws=3)
    assert judged.logits.isfinite().all()
    assert judged.not_finite == COUNT
    assert judged.right.all()  # in two of three draws
