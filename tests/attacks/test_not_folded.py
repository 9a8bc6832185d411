"""Models that are attacked as they are, with the reason; and how long a folded copy lives."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from attacked import answered, batch, conv_net, generator
from folding_cases import assert_same_function, images, settled
from torch import nn

from robust_nas.attacks import FGSM, PGD
from robust_nas.attacks.folding import folded


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(x) if x.mean() > 0.5 else -self.inner(x)


class HiddenNoise(nn.Module):
    """Noise of a fixed shape: torch.fx bakes the draw of the trace into the copy."""

    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(x + 0.2 * torch.randn(3, 8, 8, dtype=x.dtype))


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(F.dropout(x, 0.3, training=True))


class BySize(nn.Module):
    """A number that depends on how many images there are."""

    def __init__(self):
        super().__init__()
        self.inner = conv_net()

    def forward(self, x):
        return self.inner(x) * len(x)


class Masked(nn.Module):
    """A class masked with -1e9, which must not be the scale that the others are held to."""

    def __init__(self):
        super().__init__()
        self.noisy = HiddenNoise()
        self.inner = self.noisy.inner

    def forward(self, x):
        return F.pad(self.noisy(x), (0, 1), value=-1e9)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Branching, "torch.fx cannot trace it"),
        (BySize, "torch.fx cannot trace it"),
        (HiddenNoise, "its traced copy gives other logits"),
        (Dropping, "its traced copy gives other logits"),
        (Masked, "its traced copy gives other logits"),
    ],
)
def test_models_that_cannot_be_folded_are_attacked_as_they_are(make, reason):
    model = make()
    x, _ = batch()
    attributes = set(vars(model))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            result = PGD(eps=0.1, steps=2).run(model, x, answered(model.inner, x), generator())
            assert result.model_form.startswith(f"as it is: {reason}")
            assert (result.images - x).abs().max() > 0.05
    assert set(vars(model)) == attributes


def test_a_model_that_is_no_number_is_attacked_as_it_is():
    model = settled(conv_net())
    with torch.no_grad():
        model[8].bias[0] = torch.nan
    assert folded(model, images()).model_form == "as it is: its traced copy gives other logits"


@pytest.mark.parametrize("mask", [-1e9, -torch.inf])
def test_a_copy_of_a_model_with_a_masked_class_is_used(mask):
    model = nn.Sequential(conv_net(), nn.ConstantPad1d((0, 1), mask))
    assert folded(settled(model), images()).model_form == "folded"


# The cache


def test_the_cache_does_not_keep_the_model_alive():
    model = conv_net()
    x, labels = batch()
    assert FGSM(eps=0.1, fold=True).run(model, x, labels).model_form == "folded"
    gone = weakref.ref(model)
    weights = weakref.ref(model[0])
    del model
    gc.collect()
    assert gone() is None
    assert weights() is None


def test_a_copy_of_a_model_is_a_model_of_its_own():
    model, x = settled(conv_net()), images()
    assert folded(model, x).model_form == "folded"
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].weight.mul_(2)
    assert_same_function(folded(twin, x).network, twin, x)
    assert_same_function(folded(model, x).network, model, x)
