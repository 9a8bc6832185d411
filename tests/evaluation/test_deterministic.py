"""The check for a deterministic forward pass, on models whose noise a scale of the largest logit would hide."""

import pytest
import torch
from evaluation_networks import EPS, Images, generator
from torch import nn

import robust_nas
from robust_nas import ThreatModel
from robust_nas.attacks import Noise


class Masked(nn.Module):
    """Two classes by the mean pixel, with noise of a size, and a third one that is masked."""

    def __init__(self, noise, mask):
        super().__init__()
        self.noise, self.mask = noise, mask

    def forward(self, x):
        lead = 20 * (x.mean((1, 2, 3)) - 0.5)
        lead = lead + self.noise * torch.randn(len(x))
        return torch.stack([-lead, lead, torch.full_like(lead, self.mask)], 1)


def found(model):
    pixels = torch.rand(24, 1, 6, 6, generator=generator(1))
    pixels = (0.4 * pixels + 0.6 * (torch.arange(24) % 2).view(-1, 1, 1, 1)).clamp(0, 1)
    images = Images(pixels, torch.arange(24) % 2)
    evaluation = robust_nas.evaluate(
        model, images, ThreatModel(eps=EPS), [Noise(eps=EPS, draws=1)], checks=(), findings="full"
    )
    return next(each for each in evaluation.findings if each.name == "deterministic forward")


@pytest.mark.parametrize("mask", [-10.0, -1e9])
def test_undeclared_noise_is_seen_whatever_a_masked_class_holds(mask):
    assert found(Masked(0.1, mask)).status == "FAIL"
    silent = found(Masked(0.0, mask))
    assert (silent.status, silent.value) == ("PASS", 0.0)


class SometimesNaN(nn.Module):
    """NaN in another image at every pass."""

    def forward(self, x):
        z = torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)
        return z.index_fill(0, torch.randint(len(x), (1,)), torch.nan)


def test_nan_that_comes_and_goes_is_no_deterministic_forward():
    moving = found(SometimesNaN())
    assert (moving.status, moving.value) == ("FAIL", None)
