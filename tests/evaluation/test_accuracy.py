"""Correctness per image: closed forms on a linear model, and the loop that it stands for, written out."""

import pytest
import torch
from evaluation_networks import Images, conv_net, generator
from torch import nn

from robust_nas.attacks import FGSM, PGD, Predictor
from robust_nas.evaluation import correctness


def two_classes():
    """Logits of which class 0 is right where the one pixel is above 0.5."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.bias.copy_(torch.tensor([-0.5, 0.5]))
    return nn.Sequential(nn.Flatten(), layer)


def test_on_a_linear_model_it_is_the_distance_to_the_boundary():
    pixels = torch.linspace(0, 1, 21).view(-1, 1, 1, 1) + 0.01
    images = Images(pixels.clamp(0, 1), torch.zeros(21, dtype=torch.int64))
    found = correctness(two_classes(), images, FGSM(eps=0.2), generator(), batch_size=4)
    x = images.pixels.flatten()
    assert torch.equal(found.clean, x > 0.5)
    assert torch.equal(found.robust, x > 0.7)
    assert found.finite.all()
    assert found.accuracies == (int((x > 0.5).sum()) / 21, int((x > 0.7).sum()) / 21)


@pytest.fixture
def digits_batch():
    pixels = torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8, generator=generator(2))
    network = conv_net()
    network.eval()
    labels = network(pixels.float() / 255).argmax(1)
    labels[::5] = (labels[::5] + 1) % 10
    return network, Images(pixels, labels)


def test_it_is_the_loop_over_batches_with_one_generator(digits_batch):
    network, images = digits_batch
    attack, draws = PGD(eps=0.05, steps=2), generator(3)
    clean, robust = [], []
    for rows in torch.arange(70).split(32):
        x = (images.pixels[rows].float() / 255).contiguous(memory_format=torch.channels_last)
        adversarial = attack(network, x, images.labels[rows], draws)
        with torch.no_grad():
            clean.append(network(x).argmax(1) == images.labels[rows])
            robust.append(clean[-1] & (network(adversarial).argmax(1) == images.labels[rows]))
    network.train()
    found = correctness(network, images, attack, generator(3), batch_size=32)
    assert network.training
    assert torch.equal(found.clean, torch.cat(clean))
    assert torch.equal(found.robust, torch.cat(robust))
    assert 0 < found.robust.sum() < found.clean.sum() < 70


def test_another_module_may_be_attacked_and_the_model_judges(digits_batch):
    network, images = digits_batch
    attack = PGD(eps=0.05, steps=2)
    own = correctness(network, images, attack, generator())
    same = correctness(network, images, attack, generator(), attacked=conv_net().eval())
    assert torch.equal(own.robust, same.robust)
    other = correctness(network, images, attack, generator(), attacked=conv_net(seed=1).eval())
    assert torch.equal(own.clean, other.clean)
    assert other.robust.sum() > own.robust.sum()  # transferred attacks are weaker


def test_not_finite_logits_are_wrong(digits_batch):
    network, images = digits_batch

    class Dark(nn.Module):
        def forward(self, x):
            return network(x).masked_fill(x[:, 0, 0, :1] < 0.5, torch.nan)

    found = correctness(Dark(), images, FGSM(eps=0.0), generator())
    dark = images.pixels[:, 0, 0, 0].float() / 255 < 0.5
    assert torch.equal(found.finite, ~dark)
    assert not (found.clean & dark).any()


def test_a_rejection_is_right(digits_batch):
    network, images = digits_batch

    class Rejecting(nn.Module):
        def forward(self, x):
            return torch.cat([network(x), torch.full((len(x), 1), 1e4)], 1)

    found = correctness(Predictor(Rejecting(), abstains=True), images, FGSM(eps=0.05), generator())
    assert found.robust.all()
