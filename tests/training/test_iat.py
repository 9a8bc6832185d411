"""Interpolated adversarial training: its draws, its mixtures at their limits, and where networks can be mixed."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from training_cases import (
    ARCHITECTURE,
    Stopped,
    generator,
    network,
    options,
    residual,
    run_training,
    same,
    small_batch,
    small_network,
    stop_at,
)

from robust_nas.attacks import PGD
from robust_nas.distributed import Ranks
from robust_nas.errors import ConfigError
from robust_nas.nets import build_network
from robust_nas.spaces import MLPArchitecture, NASBench201Architecture
from robust_nas.training import IAT, Natural
from robust_nas.training.losses import iat
from robust_nas.workflows.context import refuse_cell_options

ATTACK = PGD(eps=0.1, steps=2, keep="last")
LAYERED = IAT(attack=ATTACK, layers="all")


def benchmark():
    cell = "|avg_pool_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"
    architecture = NASBench201Architecture.from_string(cell, cells=3, channels=2)
    return build_network(architecture, input_shape=(1, 8, 8), classes=4, seed=0)


NETWORKS = {"cells": network, "residual": residual, "nas-bench-201": benchmark}


def linear(build):
    """The network with what is not linear taken away, in float64."""
    net = build().double().eval()
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU | nn.MaxPool2d):
                setattr(module, name, nn.Identity() if isinstance(child, nn.ReLU) else nn.AvgPool2d(3, 1, 1))
    return net


def mixture(ratio, count, place=0, order=None):
    order = torch.randperm(count, generator=generator(7)) if order is None else order
    return iat.Mixture(torch.tensor(ratio, dtype=torch.float64), order, torch.tensor(place))


def batch(count=6):
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=generator(3)), torch.arange(count) % 4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0, 7.5])
def test_the_ratio_has_the_distribution_beta(alpha):
    draws = generator()
    ratios = [float(iat.symmetric_beta(alpha, torch.zeros(1).double(), draws)) for _ in range(2000)]
    assert stats.kstest(ratios, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_the_ratio_of_a_tiny_alpha_is_zero_or_one():
    draws = generator()
    ratios = {float(iat.symmetric_beta(1e-4, torch.zeros(1), draws)) for _ in range(100)}
    assert ratios == {0.0, 1.0}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_mixing_a_linear_network_anywhere_gives_the_same_logits(build, monkeypatch):
    """A cell sees the outputs of two cells: one that is left unmixed would show here."""
    monkeypatch.setattr(F, "relu", lambda x, *_: x)
    net, (images, _) = linear(build), batch()
    points = net.mixing_points()
    whole = net(images)
    mixed = [
        iat.mixed_logits(net, points, images, mixture(0.3, 6, place)) for place in range(len(points) + 1)
    ]
    order = mixture(0.3, 6).order
    assert len(points) == len(getattr(net, "cells", getattr(net, "stages", ())))
    for logits in mixed:
        torch.testing.assert_close(logits, 0.3 * whole + 0.7 * whole[order], rtol=1e-9, atol=1e-9)
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_mixing_at_the_limits_is_no_mixing(build):
    net, (images, _) = build().double().eval(), batch()
    points = net.mixing_points()
    whole = net(images)
    for place in range(len(points) + 1):
        kept = iat.mixed_logits(net, points, images, mixture(1.0, 6, place))
        assert torch.equal(kept, whole)
        unmoved = iat.mixed_logits(net, points, images, mixture(0.3, 6, place, torch.arange(6)))
        assert torch.equal(unmoved, whole)
        swapped = mixture(0.0, 6, place)
        found = iat.mixed_logits(net, points, images, swapped)
        torch.testing.assert_close(found, whole[swapped.order], rtol=1e-9, atol=1e-9)


def test_a_nonlinear_network_shows_where_it_was_mixed():
    net, (images, _) = network().double(), batch()
    points = net.mixing_points()
    found = [
        iat.mixed_logits(net, points, images, mixture(0.3, 6, place)) for place in range(len(points) + 1)
    ]
    assert len({round(float(logits.detach()[0, 0]), 6) for logits in found}) == len(points) + 1


def test_the_loss_is_that_of_the_soft_target():
    logits = torch.randn(6, 4, dtype=torch.float64, generator=generator())
    labels, mixed = torch.arange(6) % 4, mixture(0.3, 6)
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    soft = 0.3 * one_hot + 0.7 * one_hot[mixed.order]
    torch.testing.assert_close(soft.sum(1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(
        iat.mixed_loss(logits, labels, mixed.ratio, mixed.order), F.cross_entropy(logits, soft)
    )


def test_with_ratios_of_zero_or_one_it_is_the_mean_of_natural_and_adversarial():
    """In float64 and eval mode, where a batch in another order has the same loss."""
    model, (images, labels) = small_network().double().eval(), small_batch()
    images, loss = images.double(), IAT(attack=ATTACK, alpha=1e-4)
    attacked = ATTACK(model, images, labels, generator())
    expected = sum(Natural()(model, x, labels, generator()).loss for x in (images, attacked)) / 2
    torch.testing.assert_close(loss(model, images, labels, generator()).loss, expected)


def test_both_halves_draw_on_their_own_and_the_attack_sees_unmixed_images(monkeypatch):
    seen, mixed = [], iat.mixed_logits
    monkeypatch.setattr(iat, "mixed_logits", lambda *given: seen.append(given[2:]) or mixed(*given))
    net, (images, labels) = network(), batch()
    images = images.float()
    LAYERED(net, images, labels, generator())
    (clean, first), (attacked, second) = seen
    assert torch.equal(clean, images)
    assert torch.equal(attacked, ATTACK(network(), images, labels, generator()))
    assert first.ratio != second.ratio
    assert not torch.equal(first.order, second.order)
    places = []
    for seed in range(30):
        seen.clear()
        LAYERED(net, images, labels, generator(seed))
        places += [int(given[1].place) for given in seen]
    assert set(places) == {0, 1, 2, 3}
    two = IAT(attack=ATTACK, layers=1)
    seen.clear()
    for seed in range(10):
        two(net, images, labels, generator(seed))
    assert {int(given[1].place) for given in seen} == {0, 1}


@pytest.mark.parametrize("build", [network, residual], ids=["cells", "residual"])
def test_a_stopped_training_resumes_to_the_same_bits(tmp_path, build):
    values = options(loss=LAYERED)
    expected, records, net = run_training(tmp_path / "whole", values, net=build())
    with pytest.raises(Stopped):
        run_training(tmp_path / "cut", values, progress=stop_at(4), net=build())
    found, again, resumed = run_training(tmp_path / "cut", values, mode="resume", net=build())
    assert same(found.state, expected.state)
    assert same(resumed.state_dict(), net.state_dict())
    assert again == records


def test_networks_without_layers_to_mix_are_refused_before_a_training():
    recipe = options(loss=LAYERED)
    mlp = MLPArchitecture(name="mlp", depth=1, width=4)
    with pytest.raises(ConfigError, match=r"training\.loss: iat mixes.*an MLP.*allowed for it: layers 0"):
        refuse_cell_options(recipe, mlp)
    refuse_cell_options(recipe, ARCHITECTURE)
    refuse_cell_options(options(loss=IAT(attack=ATTACK)), mlp)
    with pytest.raises(ConfigError, match=r"layers; Sequential has no `mixing_points`"):
        LAYERED(small_network(), *small_batch(), generator())


def test_it_says_why_it_does_not_run_in_several_ranks():
    LAYERED.refuse_ranks(Ranks().count)
    with pytest.raises(ConfigError, match="got 'iat' for 2 ranks; the mixture of two images needs the rows"):
        LAYERED.refuse_ranks(2)
