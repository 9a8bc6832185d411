"""AI-GAN's losses and steps: closed forms, what the discriminator reaches at best, and a linear victim's exact rate."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_nas.attacks import ThreatModel
from robust_nas.attacks.attacked_model import attack_mode
from robust_nas.nets.ai_gan import Discriminator, Generator
from robust_nas.nets.build import seeded
from robust_nas.training.ai_gan import (
    AIGANStep,
    AIGANTraining,
    attacked_towards,
    deceiving_loss,
    discriminator_loss,
    each_other_class,
    hinge_bound_of,
    hinge_loss,
    other_classes,
    targeted_pgd,
)
from robust_nas.training.schedules.piecewise import Piecewise

SHAPE = (1, 8, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=6, low=0.0, high=1.0, seed=1):
    return low + (high - low) * torch.rand(count, *SHAPE, generator=generator(seed))


def linear(classes, scale=0.3):
    layer = nn.Linear(64, classes)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.randn(classes, 64, generator=generator(2)))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))  # a grey image is undecided
    return nn.Sequential(nn.Flatten(), layer)


def step(victim, classes=3, norm="linf", eps=0.1, **options):
    with seeded(0):
        made = Generator(SHAPE, classes, norm=norm, eps=eps)
        judge = Discriminator(1)
    return AIGANStep(AIGANTraining(**options), ThreatModel(norm=norm, eps=eps), victim, made, judge)


def test_without_gan_and_hinge_the_loss_is_the_weighted_cross_entropy_of_the_targets():
    victim, x, targets = linear(3), images(), torch.tensor([0, 1, 2, 0, 1, 2])
    one = step(victim, gan_weight=0, hinge_weight=0, adversarial_weight=1)
    found, fake = one.losses(x, targets)
    expected = F.cross_entropy(victim((x + one.generator(x, targets)).clamp(0, 1)), targets)
    torch.testing.assert_close(found.loss, expected)
    ten, _ = step(victim, gan_weight=0, hinge_weight=0).losses(x, targets)
    torch.testing.assert_close(ten.loss, 10 * expected)
    assert (found.gan, found.hinge, found.discriminator) == (0, 0, 0)
    assert (fake - x).abs().max() <= 0.1 + 1e-6


def test_the_whole_loss_is_the_weighted_sum_of_its_three_terms():
    x, targets = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    one = step(linear(3), gan_weight=2, hinge_weight=3, hinge_bound=0.01)
    found, _ = one.losses(x, targets)
    delta = one.generator(x, targets)
    torch.testing.assert_close(found.hinge, (delta.flatten(1).norm(dim=1) - 0.01).clamp_min(0).mean())
    assert found.hinge > 0
    torch.testing.assert_close(found.loss, 10 * found.adversarial + 2 * found.gan + 3 * found.hinge)


def test_the_hinge_is_0_without_a_gradient_inside_the_ball_and_the_excess_outside():
    u = F.normalize(torch.randn(4, 64, generator=generator())).view(4, 1, 8, 8)
    inside = (0.9 * u).requires_grad_()
    hinge_loss(inside, 1.0).backward()
    assert torch.equal(inside.grad, torch.zeros_like(u))
    outside = (1.5 * u).requires_grad_()
    loss = hinge_loss(outside, 1.0)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.5))
    torch.testing.assert_close(outside.grad, u / 4)
    assert hinge_loss(torch.zeros(2, 1, 8, 8), 0.0) == 0


def test_by_default_the_hinge_begins_where_no_perturbation_reaches():
    options = AIGANTraining()
    assert hinge_bound_of(options, ThreatModel(eps=0.1), 64) == pytest.approx(0.8)
    assert hinge_bound_of(options, ThreatModel(norm="l2", eps=0.1), 64) == 0.1
    assert hinge_bound_of(AIGANTraining(hinge_bound=0.3), ThreatModel(eps=0.1), 64) == 0.3


@pytest.mark.parametrize(
    ("gan", "undecided", "optimum"), [("bce", 0.0, 2 * math.log(2)), ("lsgan", 0.5, 0.5)]
)
def test_where_fake_and_real_are_alike_the_discriminator_is_best_undecided(gan, undecided, optimum):
    """D = 1/2, which is the logit 0; L_D = 2 log 2 of the cross-entropy, 1/2 of the least squares."""
    scores = torch.full((5,), undecided, requires_grad=True)
    loss = discriminator_loss(scores, scores, gan)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(optimum))
    torch.testing.assert_close(scores.grad, torch.zeros(5))
    for other in torch.linspace(-2, 2, 41):
        assert discriminator_loss(other.expand(5), other.expand(5), gan) >= optimum - 1e-6


@pytest.mark.parametrize("gan", ["bce", "lsgan"])
def test_a_discriminator_learns_to_tell_and_a_generator_gains_by_deceiving_it(gan):
    bright, dark = images(16, 0.8, 1.0), images(16, 0.0, 0.2)
    with seeded(0):
        judge = Discriminator(1)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-2)
    before = discriminator_loss(judge(bright), judge(dark), gan).detach()
    for _ in range(20):
        optimiser.zero_grad()
        discriminator_loss(judge(bright), judge(dark), gan).backward()
        optimiser.step()
    assert discriminator_loss(judge(bright), judge(dark), gan) < before - 0.05
    assert deceiving_loss(judge(bright), gan) < deceiving_loss(judge(dark), gan)


def test_targets_are_never_the_label_and_every_other_class_is_drawn():
    labels = torch.arange(600) % 4
    targets = other_classes(labels, 4, generator())
    assert (targets != labels).all()
    assert ((targets - labels) % 4).bincount(minlength=4)[1:].min() > 150
    every = each_other_class(labels[:5], 4)
    assert every.shape == (3, 5)
    assert all(
        sorted([*column, int(label)]) == [0, 1, 2, 3]
        for column, label in zip(every.T.tolist(), labels, strict=False)
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attacker_leads_to_the_class_it_is_given(norm):
    victim, x = linear(3), images(8, 0.4, 0.6)
    labels = victim(x).argmax(1)
    targets = (labels + torch.tensor([1, 2] * 4)) % 3
    pgd = targeted_pgd(ThreatModel(norm=norm, eps=0.3 if norm == "linf" else 2.0), 10)
    found = attacked_towards(pgd, victim, x, labels, targets, generator())
    assert torch.equal(victim(found.images).argmax(1), targets)
    assert found.backwards == 10 * len(x)


def test_the_stages_are_a_third_and_the_rest_unless_it_is_said():
    assert [AIGANTraining(epochs=6).stage(epoch) for epoch in range(6)] == [1, 1, 2, 2, 2, 2]
    assert [AIGANTraining(epochs=3, stage1_epochs=0).stage(epoch) for epoch in range(3)] == [2, 2, 2]
    assert AIGANTraining().schedule.factor_at(59, 60) == pytest.approx(0.1)


def real_ones(one, stage, x, labels):
    """What the discriminator is shown in a step: the real ones, then the generator's."""
    shown = []
    one.discriminator.register_forward_pre_hook(
        lambda module, inputs: shown.append(inputs[0].detach().clone())
    )
    with attack_mode(one.victim):
        one(x, labels, stage, generator(3))
    return shown


def test_the_real_ones_are_the_attacker_s_in_stage_1_and_the_images_in_stage_2():
    x = images(8, 0.3, 0.7)
    labels = linear(3)(x).argmax(1)
    real, fake, _ = real_ones(step(linear(3)), 2, x, labels)
    assert torch.equal(real, x)
    assert not torch.equal(fake, x)
    one = step(linear(3), attacker_steps=5)
    real, _, _ = real_ones(one, 1, x, labels)
    draws = generator(3)
    targets = other_classes(labels, 3, draws)
    expected = attacked_towards(one.attacker, linear(3), x, labels, targets, draws).images
    assert torch.equal(real, expected)
    assert (real - x).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_victim_of_two_classes_the_rate_is_that_of_the_closed_form(norm):
    """An image falls exactly where its margin is below eps ||w||_q; eps sign(w), or eps w / ||w||_2, reaches it."""
    victim, x = linear(2).requires_grad_(False), images(256, 0.3, 0.7)
    labels = victim(x).argmax(1)
    w = victim[1].weight[1] - victim[1].weight[0]
    dual = float(w.abs().sum() if norm == "linf" else w.norm())
    logits = victim(x)
    margins = (logits[:, 1] - logits[:, 0]).abs()
    eps = float(margins.median()) / dual
    exact = float((margins < eps * dual).float().mean())
    one = step(victim, 2, norm, eps, learning_rate=3e-3, gan_weight=0, hinge_weight=0, schedule=Piecewise())
    draws = generator(5)
    with attack_mode(victim):
        for _ in range(120):
            rows = torch.randint(256, (32,), generator=draws)
            one(x[rows], labels[rows], 2, draws)
    delta = one.generator(x, 1 - labels)
    reached = float((victim(x + delta).argmax(1) != labels).float().mean())
    assert exact - 0.02 <= reached <= exact
    assert victim[1].weight.grad is None
