"""Batch norms folded for good: only into what has one reader, and never without the network's own logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from robust_nas.compression.folding import fold_batch_norms, random_images
from robust_nas.compression.gdws_network import compress_gdws

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Three convolutions with batch norms, of which a subclass reads one in another way too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.third = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.classifier = nn.Linear(6, 4)

    def also(self, x, y):
        return 0

    def forward(self, x):
        y = self.norm1(self.first(x)).relu()
        y = self.norm2(self.second(y)) + self.also(x, y)
        return self.classifier(self.norm3(self.third(y.relu())).mean((2, 3)))


class WeightReadToo(Net):
    def also(self, x, y):
        return F.conv2d(y, self.second.weight, padding=1)


class WeightUnderAnotherName(Net):
    def __init__(self):
        super().__init__()
        self.alias = self.second.weight

    def also(self, x, y):
        return F.conv2d(y, self.alias, padding=1)


class StatisticsReadToo(Net):
    def also(self, x, y):
        return y * self.norm2.running_var.view(1, -1, 1, 1)


class ScaleReadToo(Net):
    def also(self, x, y):
        return y * self.norm2.weight.view(1, -1, 1, 1)


class TiedWeight(Net):
    def __init__(self):
        super().__init__()
        self.third.weight = self.second.weight


class CalledTwice(Net):
    def also(self, x, y):
        return self.second(y)


class NormCalledTwice(Net):
    def also(self, x, y):
        return self.norm2(y)


class Parametrised(Net):
    def __init__(self):
        super().__init__()
        parametrizations.weight_norm(self.second)


KEPT = [
    WeightReadToo,
    WeightUnderAnotherName,
    StatisticsReadToo,
    ScaleReadToo,
    TiedWeight,
    CalledTwice,
    NormCalledTwice,
    Parametrised,
]


class BiasAsked(Net):
    """Does something else where the convolution has a bias, which folding gives it."""

    def also(self, x, y):
        return y if self.second.bias is None else -y


class StatisticsComputed(Net):
    """Reads statistics through a number that a trace takes for a constant."""

    def also(self, x, y):
        return y * float(self.norm2.running_var.sum())


class OnDarkImages(Net):
    """Asks for the number of batch norms, and shows it on black images alone."""

    def also(self, x, y):
        count = sum(isinstance(module, nn.BatchNorm2d) for module in self.modules())
        return count * y * (x.amax((1, 2, 3), keepdim=True) == 0)


def settled(network):
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
    return network.double().eval()


def images():
    return random_images(nn.Linear(1, 1).double(), SHAPE)


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("make", KEPT)
def test_what_is_read_twice_is_not_folded_and_the_rest_is(make):
    network = settled(make())
    folded, forms, why = fold_batch_norms(network, images())
    assert why == ""
    assert norms(folded) == (2 if make is TiedWeight else 1)
    assert len(forms) == 2 * (3 - norms(folded))
    torch.testing.assert_close(folded(images()), network(images()))


def test_every_norm_of_a_plain_network_is_folded():
    network = settled(Net())
    folded, forms, why = fold_batch_norms(network, images())
    assert (norms(folded), len(forms), why) == (0, 6, "")
    torch.testing.assert_close(folded(images()), network(images()))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(BiasAsked, "its folded copy gives other logits"), (StatisticsComputed, "its folded copy fails")],
)
def test_a_copy_that_does_not_give_the_logits_is_not_used(make, reason):
    network = settled(make())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded, forms, why = fold_batch_norms(network, images())
    assert why.startswith(reason)
    assert forms == ()
    assert torch.equal(folded(images()), network(images()))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_compression_says_why_nothing_was_folded_and_looks_at_the_images_that_it_got():
    found = compress_gdws(settled(StatisticsComputed()), SHAPE, macs=0.9)
    assert found.not_folded.startswith("its folded copy fails")
    dark = compress_gdws(settled(OnDarkImages()), SHAPE, macs=0.9, images=0 * images())
    assert dark.not_folded == "its folded copy gives other logits"
    assert compress_gdws(settled(OnDarkImages()), SHAPE, macs=0.9).not_folded == ""


def test_a_network_in_training_mode_comes_back_so():
    network = settled(Net()).train()
    folded, _, why = fold_batch_norms(network, images())
    assert why == ""
    assert network.training
    assert folded.training
    assert network.norm1.num_batches_tracked == 0
